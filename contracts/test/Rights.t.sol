// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC721Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IERC721Receiver} from "@openzeppelin/contracts/token/ERC721/IERC721Receiver.sol";
import {INectarRegistry, Record, Resolved} from "../src/INectarRegistry.sol";
import {Registry, RegistryTest} from "./support/RegistryTest.sol";

/// @notice Who may do what, and what a transfer leaves behind.
contract RightsTest is RegistryTest {
    uint256 internal tokenId;

    function setUp() public override {
        super.setUp();
        tokenId = claim("alice", alice, ipv4());
    }

    function test_a_manager_sets_the_record_and_the_key_and_enlists() public {
        _appoint(bob);
        vm.prank(bob);
        registry.setRecord(tokenId, ipv6());
        assertResolves("alice", ipv6());
        vm.prank(bob);
        registry.rotateKey(tokenId, keccak256("new"));
        vm.assertEq(registry.resolve("alice").networkingKey, keccak256("new"), "key");
        vm.prank(bob);
        vm.assertEq(registry.enlist(tokenId), 1, "index");
    }

    function test_attack_a_manager_transfers() public {
        _appoint(bob);
        bytes memory refused = abi.encodeWithSelector(IERC721Errors.ERC721InsufficientApproval.selector, bob, tokenId);
        vm.expectRevert(refused);
        vm.prank(bob);
        registry.transferFrom(alice, bob, tokenId);
        vm.expectRevert(refused);
        vm.prank(bob);
        registry.safeTransferFrom(alice, bob, tokenId);
        vm.expectRevert(abi.encodeWithSelector(IERC721Errors.ERC721InvalidApprover.selector, bob));
        vm.prank(bob);
        registry.approve(bob, tokenId);
    }

    function test_attack_a_manager_appoints() public {
        _appoint(bob);
        vm.expectRevert(_notAuthorized(bob));
        vm.prank(bob);
        registry.setManager(tokenId, eve);
    }

    function test_a_dismissed_manager_has_no_rights() public {
        _appoint(bob);
        _appoint(address(0));
        _mayNotEdit(bob);
    }

    function test_a_stranger_has_no_rights() public {
        _mayNotEdit(eve);
        vm.expectRevert(_notAuthorized(eve));
        vm.prank(eve);
        registry.setManager(tokenId, eve);
        vm.expectRevert(abi.encodeWithSelector(IERC721Errors.ERC721InsufficientApproval.selector, eve, tokenId));
        vm.prank(eve);
        registry.transferFrom(alice, eve, tokenId);
    }

    function test_attack_an_approved_account_edits_the_record() public {
        vm.prank(alice);
        registry.approve(eve, tokenId);
        _mayNotEdit(eve);
        vm.expectRevert(_notAuthorized(eve));
        vm.prank(eve);
        registry.setManager(tokenId, eve);
    }

    function test_attack_an_operator_of_all_edits_the_record() public {
        vm.prank(alice);
        registry.setApprovalForAll(eve, true);
        _mayNotEdit(eve);
        vm.expectRevert(_notAuthorized(eve));
        vm.prank(eve);
        registry.setManager(tokenId, eve);
    }

    function test_an_unregistered_name_has_no_editor() public {
        bytes memory unknown = abi.encodeWithSelector(INectarRegistry.NameUnknown.selector, id("bob"));
        vm.expectRevert(unknown);
        registry.setRecord(id("bob"), ipv4());
        vm.expectRevert(unknown);
        registry.rotateKey(id("bob"), KEY);
        vm.expectRevert(unknown);
        registry.setManager(id("bob"), bob);
        vm.expectRevert(unknown);
        registry.enlist(id("bob"));
    }

    // Transfers

    function test_a_transfer_clears_every_kind_of_record() public {
        uint32[] memory routers = enlistRouters(8);
        Record[4] memory records = [ipv4(), ipv6(), dns("node.example.org"), indirect(routers)];
        for (uint32 i; i < records.length; ++i) {
            (address from, address to) = i % 2 == 0 ? (alice, bob) : (bob, alice);
            vm.prank(from);
            registry.setRecord(tokenId, records[i]);
            vm.prank(from);
            registry.setManager(tokenId, eve);
            vm.prank(from);
            registry.transferFrom(from, to, tokenId);
            assertCleared("alice", to);
            vm.assertEq(registry.resolve("alice").epoch, i + 2, "epoch");
            vm.assertEq(registry.resolve("alice").version, 1 + 3 * (i + 1), "version");
            _mayNotEdit(from);
            _mayNotEdit(eve);
        }
    }

    function test_a_transfer_to_oneself_is_a_transfer() public {
        _appoint(bob);
        vm.prank(alice);
        registry.transferFrom(alice, alice, tokenId);
        assertCleared("alice", alice);
        vm.assertEq(registry.resolve("alice").epoch, 2, "epoch");
    }

    function test_an_approved_account_may_transfer_and_clears_the_record() public {
        vm.prank(alice);
        registry.approve(eve, tokenId);
        vm.prank(eve);
        registry.transferFrom(alice, bob, tokenId);
        assertCleared("alice", bob);
    }

    function test_a_name_cannot_be_burnt() public {
        vm.expectRevert(abi.encodeWithSelector(IERC721Errors.ERC721InvalidReceiver.selector, address(0)));
        vm.prank(alice);
        registry.transferFrom(alice, address(0), tokenId);
    }

    function test_a_router_that_is_sold_stays_listed() public {
        uint32[] memory routers = enlistRouters(1);
        vm.prank(alice);
        registry.setRecord(tokenId, indirect(routers));
        vm.prank(bob);
        registry.transferFrom(bob, eve, id("router-0"));
        assertResolves("alice", indirect(routers));
    }

    function testFuzz_no_account_but_owner_and_manager_edits(address account) public {
        vm.assume(account != alice && account != bob && account != address(0));
        _appoint(bob);
        _mayNotEdit(account);
    }

    // Re-entrancy

    function test_attack_a_receiver_sees_the_sellers_record() public {
        _appoint(bob);
        Receiver receiver = new Receiver(registry);
        vm.prank(alice);
        registry.safeTransferFrom(alice, address(receiver), tokenId);
        vm.assertEq(receiver.keySeen(), bytes32(0), "key");
        vm.assertEq(receiver.managerSeen(), address(0), "manager");
        vm.assertEq(receiver.ownerSeen(), address(receiver), "owner");
    }

    function test_a_receiver_may_use_its_name_at_once() public {
        Receiver receiver = new Receiver(registry);
        receiver.willSet(ipv6());
        vm.prank(alice);
        registry.safeTransferFrom(alice, address(receiver), tokenId);
        assertResolves("alice", ipv6());
        vm.assertEq(registry.resolve("alice").version, 3, "transfer, then record");
    }

    function test_attack_a_receiver_passes_the_name_on_within_its_callback() public {
        Receiver receiver = new Receiver(registry);
        receiver.willSet(ipv6());
        receiver.willPassTo(eve);
        vm.prank(alice);
        registry.safeTransferFrom(alice, address(receiver), tokenId);
        assertCleared("alice", eve);
        vm.assertEq(registry.resolve("alice").epoch, 3, "epoch");
        vm.assertEq(registry.balanceOf(address(receiver)), 0, "balance");
    }

    function test_attack_a_treasury_reenters_a_registration() public {
        GreedyTreasury greedy = new GreedyTreasury();
        registry = deploy(MIN_AGE, MAX_AGE, FEE, payable(greedy));
        greedy.aim(registry, ipv4());
        registry.commit(registry.makeCommitment("alice", alice, ipv4(), SALT));
        skip(MIN_AGE);
        vm.prank(alice);
        registry.register{value: FEE}("alice", alice, ipv4(), SALT);
        // Its second reveal of the same commitment found the name taken, and what it kept is one fee.
        vm.assertEq(greedy.refusal(), abi.encodeWithSelector(INectarRegistry.NameTaken.selector, id("alice")), "why");
        vm.assertEq(address(greedy).balance, FEE, "fee");
        vm.assertEq(registry.resolve("alice").version, 1, "version");
        vm.assertEq(registry.balanceOf(alice), 1, "balance");
    }

    function test_a_registration_does_not_call_its_owner() public {
        Receiver receiver = new Receiver(registry);
        vm.deal(address(receiver), 1 ether);
        claim("bob", address(receiver), ipv4());
        vm.assertEq(receiver.ownerSeen(), address(0), "not called");
        vm.assertEq(registry.ownerOf(id("bob")), address(receiver), "owner");
    }

    function _appoint(address manager) private {
        vm.prank(alice);
        registry.setManager(tokenId, manager);
        vm.assertEq(registry.resolve("alice").manager, manager, "manager");
    }

    function _mayNotEdit(address account) private {
        Record memory record = ipv4();
        vm.expectRevert(_notAuthorized(account));
        vm.prank(account);
        registry.setRecord(tokenId, record);
        vm.expectRevert(_notAuthorized(account));
        vm.prank(account);
        registry.rotateKey(tokenId, KEY);
        vm.expectRevert(_notAuthorized(account));
        vm.prank(account);
        registry.enlist(tokenId);
    }

    function _notAuthorized(address account) private view returns (bytes memory) {
        return abi.encodeWithSelector(INectarRegistry.NotAuthorized.selector, tokenId, account);
    }
}

/// @notice Looks at what it was given from within the callback, and acts on it.
contract Receiver is IERC721Receiver {
    Registry private immutable registry;
    bytes32 public keySeen;
    address public managerSeen;
    address public ownerSeen;
    Record private record;
    address private next;

    constructor(Registry registry_) {
        registry = registry_;
    }

    function willSet(Record calldata record_) external {
        record = record_;
    }

    function willPassTo(address next_) external {
        next = next_;
    }

    function onERC721Received(address, address, uint256 tokenId, bytes calldata) external returns (bytes4) {
        Resolved memory seen = registry.resolve(registry.labelOf(tokenId));
        (keySeen, managerSeen, ownerSeen) = (seen.networkingKey, seen.manager, seen.owner);
        if (record.networkingKey != 0) registry.setRecord(tokenId, record);
        if (next != address(0)) registry.transferFrom(address(this), next, tokenId);
        return IERC721Receiver.onERC721Received.selector;
    }
}

/// @notice Spends the fee it receives on revealing the same commitment again.
contract GreedyTreasury {
    Registry private registry;
    Record private record;
    bytes public refusal;

    function aim(Registry registry_, Record calldata record_) external {
        (registry, record) = (registry_, record_);
    }

    receive() external payable {
        address owner = registry.ownerOf(uint256(keccak256("alice")));
        try registry.register{value: msg.value}("alice", owner, record, keccak256("salt")) {}
        catch (bytes memory reason) {
            refusal = reason;
        }
    }
}
