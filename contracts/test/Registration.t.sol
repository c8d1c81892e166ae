// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC721Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {INectarRegistry, Record, Resolved} from "../src/INectarRegistry.sol";
import {Registry, RegistryTest} from "./support/RegistryTest.sol";

/// @notice Commit and reveal, labels and the fee.
contract RegistrationTest is RegistryTest {
    function test_registers_the_full_record_in_one_transaction() public {
        Record memory record = ipv4();
        bytes32 commitment = registry.makeCommitment("alice", alice, record, SALT);
        vm.expectEmit(address(registry));
        emit INectarRegistry.Committed(commitment, uint64(time()));
        registry.commit(commitment);
        vm.assertEq(registry.commitments(commitment), time(), "made now");

        skip(MIN_AGE);
        vm.expectEmit(address(registry));
        emit INectarRegistry.NameRegistered(id("alice"), alice, "alice");
        vm.expectEmit(address(registry));
        emit INectarRegistry.RecordChanged(id("alice"), 1, 1);
        vm.prank(alice);
        uint256 tokenId = registry.register{value: FEE}("alice", alice, record, SALT);

        vm.assertEq(tokenId, id("alice"), "tokenId");
        vm.assertEq(registry.ownerOf(tokenId), alice, "owner");
        vm.assertEq(registry.balanceOf(alice), 1, "balance");
        vm.assertEq(registry.labelOf(tokenId), "alice", "label");
        vm.assertEq(registry.commitments(commitment), 0, "used up");
        Resolved memory got = registry.resolve("alice");
        vm.assertEq(got.owner, alice, "resolved owner");
        vm.assertEq(got.manager, address(0), "manager");
        vm.assertEq(got.version, 1, "version");
        vm.assertEq(got.epoch, 1, "epoch");
        assertResolves("alice", record);
    }

    function test_says_what_it_is() public view {
        vm.assertEq(registry.registryVersion(), 1, "registryVersion");
        vm.assertEq(registry.minCommitmentAge(), MIN_AGE, "minCommitmentAge");
        vm.assertEq(registry.maxCommitmentAge(), MAX_AGE, "maxCommitmentAge");
        vm.assertEq(registry.fee(), FEE, "fee");
        vm.assertEq(registry.treasury(), treasury, "treasury");
        vm.assertEq(registry.name(), "Nectar Names", "name");
        vm.assertEq(registry.supportsInterface(0x80ac58cd), true, "ERC-721");
        vm.assertEq(registry.supportsInterface(0x5b5e139f), true, "ERC-721 metadata");
    }

    function test_the_token_uri_names_the_name() public {
        claim("alice", alice, ipv4());
        // base64 of {"name":"alice","description":"The name of a nectar node."}
        vm.assertEq(
            registry.tokenURI(id("alice")),
            "data:application/json;base64,eyJuYW1lIjoiYWxpY2UiLCJkZXNjcmlwdGlvbiI6IlRoZSBuYW1lIG9mIGEgbmVjdGFyIG5vZGUuIn0=",
            "tokenURI"
        );
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.NameUnknown.selector, id("bob")));
        registry.tokenURI(id("bob"));
    }

    function test_the_commitment_is_the_documented_hash() public view {
        Record memory record = dns("node.example.org");
        bytes32 expected = keccak256(
            abi.encode(block.chainid, address(registry), "alice", alice, keccak256(abi.encode(record)), SALT)
        );
        vm.assertEq(registry.makeCommitment("alice", alice, record, SALT), expected, "commitment");
    }

    // Front-running

    function test_attack_a_copied_commitment_serves_its_maker() public {
        bytes32 commitment = registry.makeCommitment("alice", alice, ipv4(), SALT);
        vm.prank(eve);
        registry.commit(commitment);
        skip(MIN_AGE);

        // Eve, who has seen the reveal in the mempool, has no commitment to herself…
        bytes32 hers = registry.makeCommitment("alice", eve, ipv4(), SALT);
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.CommitmentUnknown.selector, hers));
        vm.prank(eve);
        registry.register{value: FEE}("alice", eve, ipv4(), SALT);

        // …nor one to a record of hers under alice's ownership.
        Record memory forged = ipv4();
        forged.networkingKey = keccak256("eve");
        bytes32 mixed = registry.makeCommitment("alice", alice, forged, SALT);
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.CommitmentUnknown.selector, mixed));
        vm.prank(eve);
        registry.register{value: FEE}("alice", alice, forged, SALT);

        // What she can send is alice's own registration, paid for by eve.
        vm.prank(eve);
        registry.register{value: FEE}("alice", alice, ipv4(), SALT);
        vm.assertEq(registry.ownerOf(id("alice")), alice, "owner");
        vm.assertEq(registry.balanceOf(eve), 0, "eve's balance");
    }

    function test_attack_a_front_runner_cannot_commit_and_reveal_at_once() public {
        bytes32 hers = registry.makeCommitment("alice", eve, ipv4(), SALT);
        registry.commit(hers);
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.CommitmentTooNew.selector, hers, time() + MIN_AGE));
        vm.prank(eve);
        registry.register{value: FEE}("alice", eve, ipv4(), SALT);
    }

    function test_attack_a_live_commitment_cannot_be_renewed() public {
        bytes32 commitment = registry.makeCommitment("alice", alice, ipv4(), SALT);
        uint256 made = time();
        registry.commit(commitment);

        uint256[3] memory tries = [made, made + MIN_AGE - 1, made + MAX_AGE];
        for (uint256 i; i < tries.length; ++i) {
            vm.warp(tries[i]);
            vm.expectRevert(abi.encodeWithSelector(INectarRegistry.CommitmentLive.selector, commitment, made + MAX_AGE));
            vm.prank(eve);
            registry.commit(commitment);
        }
        vm.prank(alice);
        registry.register{value: FEE}("alice", alice, ipv4(), SALT);
    }

    function test_a_lapsed_commitment_can_be_made_again() public {
        bytes32 commitment = registry.makeCommitment("alice", alice, ipv4(), SALT);
        uint256 made = time();
        registry.commit(commitment);
        vm.warp(made + MAX_AGE + 1);
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.CommitmentTooOld.selector, commitment, made + MAX_AGE));
        vm.prank(alice);
        registry.register{value: FEE}("alice", alice, ipv4(), SALT);

        registry.commit(commitment);
        skip(MIN_AGE);
        vm.prank(alice);
        registry.register{value: FEE}("alice", alice, ipv4(), SALT);
    }

    function test_a_reveal_one_second_early_is_refused() public {
        bytes32 commitment = registry.makeCommitment("alice", alice, ipv4(), SALT);
        uint256 made = time();
        registry.commit(commitment);
        vm.warp(made + MIN_AGE - 1);
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.CommitmentTooNew.selector, commitment, made + MIN_AGE));
        vm.prank(alice);
        registry.register{value: FEE}("alice", alice, ipv4(), SALT);
    }

    function test_a_reveal_without_commitment_is_refused() public {
        bytes32 commitment = registry.makeCommitment("alice", alice, ipv4(), SALT);
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.CommitmentUnknown.selector, commitment));
        vm.prank(alice);
        registry.register{value: FEE}("alice", alice, ipv4(), SALT);
    }

    function test_attack_a_commitment_of_another_registry_or_chain_counts_nowhere_else() public {
        Registry other = deploy(MIN_AGE, MAX_AGE, FEE, treasury);
        bytes32 there = other.makeCommitment("alice", alice, ipv4(), SALT);
        bytes32 here = registry.makeCommitment("alice", alice, ipv4(), SALT);
        vm.assertEq(here == there, false, "bound to the contract");
        vm.chainId(block.chainid + 1);
        vm.assertEq(here == registry.makeCommitment("alice", alice, ipv4(), SALT), false, "bound to the chain");
    }

    function test_attack_a_second_commitment_to_a_taken_name_is_worth_nothing() public {
        bytes32 hers = registry.makeCommitment("alice", eve, ipv4(), SALT);
        registry.commit(hers);
        claim("alice", alice, ipv4());
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.NameTaken.selector, id("alice")));
        vm.prank(eve);
        registry.register{value: FEE}("alice", eve, ipv4(), SALT);
    }

    function test_nobody_owns_a_name_by_mistake() public {
        registry.commit(registry.makeCommitment("alice", address(0), ipv4(), SALT));
        skip(MIN_AGE);
        vm.expectRevert(abi.encodeWithSelector(IERC721Errors.ERC721InvalidReceiver.selector, address(0)));
        vm.prank(alice);
        registry.register{value: FEE}("alice", address(0), ipv4(), SALT);
    }

    function testFuzz_the_reveal_window_is_exact(uint256 wait) public {
        wait = bound(wait, 0, 2 * MAX_AGE);
        bytes32 commitment = registry.makeCommitment("alice", alice, ipv4(), SALT);
        uint256 made = time();
        registry.commit(commitment);
        vm.warp(made + wait);
        if (wait < MIN_AGE) {
            vm.expectRevert(
                abi.encodeWithSelector(INectarRegistry.CommitmentTooNew.selector, commitment, made + MIN_AGE)
            );
        } else if (wait > MAX_AGE) {
            vm.expectRevert(
                abi.encodeWithSelector(INectarRegistry.CommitmentTooOld.selector, commitment, made + MAX_AGE)
            );
        }
        vm.prank(bob);
        registry.register{value: FEE}("alice", alice, ipv4(), SALT);
    }

    // The fee

    function test_the_fee_is_exact_and_goes_to_the_treasury() public {
        registry.commit(registry.makeCommitment("alice", alice, ipv4(), SALT));
        skip(MIN_AGE);
        uint256[3] memory wrong = [0, FEE - 1, FEE + 1];
        for (uint256 i; i < wrong.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(INectarRegistry.FeeMismatch.selector, FEE, wrong[i]));
            vm.prank(alice);
            registry.register{value: wrong[i]}("alice", alice, ipv4(), SALT);
        }
        vm.prank(alice);
        registry.register{value: FEE}("alice", alice, ipv4(), SALT);
        vm.assertEq(treasury.balance, FEE, "treasury");
        vm.assertEq(address(registry).balance, 0, "registry");
    }

    function test_a_free_registry_takes_no_money_and_needs_no_treasury() public {
        registry = deploy(MIN_AGE, MAX_AGE, 0, payable(address(0)));
        registry.commit(registry.makeCommitment("alice", alice, ipv4(), SALT));
        skip(MIN_AGE);
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.FeeMismatch.selector, 0, 1));
        vm.prank(alice);
        registry.register{value: 1}("alice", alice, ipv4(), SALT);
        vm.prank(alice);
        registry.register("alice", alice, ipv4(), SALT);
        vm.assertEq(registry.ownerOf(id("alice")), alice, "owner");
    }

    function test_a_treasury_that_refuses_stops_the_registration() public {
        registry = deploy(MIN_AGE, MAX_AGE, FEE, payable(address(this)));
        registry.commit(registry.makeCommitment("alice", alice, ipv4(), SALT));
        skip(MIN_AGE);
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.FeeRefused.selector, address(this), FEE));
        vm.prank(alice);
        registry.register{value: FEE}("alice", alice, ipv4(), SALT);
    }

    function test_a_deployment_that_could_not_work_is_refused() public {
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.CommitmentAgesInvalid.selector, 60, 60));
        deploy(60, 60, 0, treasury);
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.TreasuryMissing.selector, 1));
        deploy(60, 61, 1, payable(address(0)));
    }

    // Labels

    function test_every_rule_of_labels() public {
        _label("abc", 0);
        _label("a-b", 0);
        _label("000", 0);
        _label("a-b-c-9", 0);
        _label("abcdefghijklmnopqrstuvwxyz-0123456789-abcdefghijklmnopqrstuvwxyz", 2); // 64
        _label("abcdefghijklmnopqrstuvwxyz-0123456789-abcdefghijklmnopqrstuvwxy", 0); // 63
        _label("", 1);
        _label("a", 1);
        _label("ab", 1);
        _label("--", 1);
        _label("Abc", 3);
        _label("abC", 3);
        _label("a.b", 3);
        _label("a_b", 3);
        _label("a b", 3);
        _label("abc ", 3);
        _label("abc/", 3); // before 0
        _label("abc:", 3); // after 9
        _label("abc`", 3); // before a
        _label("abc{", 3); // after z
        _label("abc,", 3); // before the hyphen
        _label(unicode"ábc", 3);
        _label(unicode"аbc", 3); // Cyrillic a
        _label(string(hex"61620063"), 3);
        _label("-Ab", 3); // characters before hyphens
        _label("-abc", 4);
        _label("abc-", 4);
        _label("---", 4);
        _label("-a--b", 4); // edges before doubles
        _label("a--b", 5);
        _label("xn--bcher-kva", 5);
    }

    function testFuzz_a_label_of_allowed_characters_is_judged_by_its_hyphens_and_length(bytes memory noise)
        public
        view
    {
        bytes memory alphabet = "abcdefghijklmnopqrstuvwxyz0123456789-------";
        bytes memory label = new bytes(bound(noise.length, 0, 70));
        for (uint256 i; i < label.length; ++i) {
            label[i] = alphabet[uint8(noise[i % noise.length]) % alphabet.length];
        }
        vm.assertEq(registry.labelError(string(label)), _rule(label), string(label));
    }

    function testFuzz_any_bytes_are_judged_by_the_same_rules(bytes memory label) public view {
        vm.assertEq(registry.labelError(string(label)), _rule(label), "rule");
        vm.assertEq(registry.available(string(label)), _rule(label) == 0, "available");
    }

    function test_availability_ends_with_registration() public {
        vm.assertEq(registry.available("alice"), true, "before");
        claim("alice", alice, ipv4());
        vm.assertEq(registry.available("alice"), false, "after");
        vm.assertEq(registry.available("Alice"), false, "invalid");
    }

    function test_an_unregistered_name_does_not_resolve() public {
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.NameUnknown.selector, id("alice")));
        registry.resolve("alice");
    }

    function _label(string memory label, uint8 rule) private {
        vm.assertEq(registry.labelError(label), rule, label);
        vm.assertEq(_rule(bytes(label)), rule, label);
        vm.assertEq(registry.available(label), rule == 0, label);
        if (rule == 0) return;
        registry.commit(registry.makeCommitment(label, alice, ipv4(), SALT));
        skip(MIN_AGE);
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.LabelInvalid.selector, label, rule));
        vm.prank(alice);
        registry.register{value: FEE}(label, alice, ipv4(), SALT);
    }

    /// @dev The rules once more, in another style.
    function _rule(bytes memory label) private pure returns (uint8) {
        if (label.length < 3) return 1;
        if (label.length > 63) return 2;
        for (uint256 i; i < label.length; ++i) {
            bytes1 c = label[i];
            if (!((c >= "a" && c <= "z") || (c >= "0" && c <= "9") || c == "-")) return 3;
        }
        if (label[0] == "-" || label[label.length - 1] == "-") return 4;
        for (uint256 i = 1; i < label.length; ++i) {
            if (label[i] == "-" && label[i - 1] == "-") return 5;
        }
        return 0;
    }
}
