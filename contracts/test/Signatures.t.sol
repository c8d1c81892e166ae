// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {INectarRegistry, Record} from "../src/INectarRegistry.sol";
import {RegistryTest} from "./support/RegistryTest.sol";

/// @notice Changes that somebody else pays for. Eve is the relayer throughout.
contract SignaturesTest is RegistryTest {
    bytes32 private constant NEW_KEY = keccak256("new");

    uint256 private tokenId;
    uint256 private deadline;

    function setUp() public override {
        super.setUp();
        tokenId = claim("alice", alice, ipv4());
        deadline = time() + 1 hours;
    }

    function test_the_owner_signs_and_anyone_sends() public {
        vm.assertEq(registry.nonces(tokenId), 1, "nonce");
        bytes memory signature = _sign(ALICE_KEY, _recordDigest(ipv6()));
        vm.expectEmit(address(registry));
        emit INectarRegistry.RecordChanged(tokenId, 2, 1);
        _setRecordFor(ipv6(), alice, signature);
        assertResolves("alice", ipv6());
        vm.assertEq(registry.nonces(tokenId), 2, "nonce");

        _rotateFor(NEW_KEY, alice, _sign(ALICE_KEY, _rotateDigest(NEW_KEY)));
        vm.assertEq(registry.resolve("alice").networkingKey, NEW_KEY, "key");
        vm.assertEq(registry.nonces(tokenId), 3, "nonce");
    }

    function test_the_manager_signs_too() public {
        _appoint(bob);
        _setRecordFor(dns("a.example"), bob, _sign(BOB_KEY, _recordDigest(dns("a.example"))));
        assertResolves("alice", dns("a.example"));
        _rotateFor(NEW_KEY, bob, _sign(BOB_KEY, _rotateDigest(NEW_KEY)));
        vm.assertEq(registry.resolve("alice").networkingKey, NEW_KEY, "key");
    }

    function test_routers_are_signed_for() public {
        Record memory record = indirect(enlistRouters(3));
        deadline = time() + 1;
        bytes memory signature = _sign(ALICE_KEY, _recordDigest(record));
        (record.routers[0], record.routers[1]) = (record.routers[1], record.routers[0]);
        _refusesRecord(record, alice, signature);
        (record.routers[0], record.routers[1]) = (record.routers[1], record.routers[0]);
        _setRecordFor(record, alice, signature);
        assertResolves("alice", record);
    }

    // Attacks

    function test_attack_a_signature_is_replayed() public {
        bytes memory signature = _sign(ALICE_KEY, _rotateDigest(NEW_KEY));
        _rotateFor(NEW_KEY, alice, signature);
        _refusesRotation(NEW_KEY, alice, signature);
        signature = _sign(ALICE_KEY, _recordDigest(ipv6()));
        _setRecordFor(ipv6(), alice, signature);
        _refusesRecord(ipv6(), alice, signature);
    }

    function test_attack_a_signature_is_held_back_until_after_a_later_change() public {
        bytes memory signature = _sign(ALICE_KEY, _rotateDigest(NEW_KEY));
        vm.prank(alice);
        registry.rotateKey(tokenId, keccak256("newer"));
        _refusesRotation(NEW_KEY, alice, signature);
    }

    function test_attack_a_signature_is_used_on_another_chain() public {
        bytes memory signature = _sign(ALICE_KEY, _rotateDigest(NEW_KEY));
        vm.chainId(block.chainid + 1);
        _refusesRotation(NEW_KEY, alice, signature);
    }

    function test_attack_a_signature_is_used_on_another_registry() public {
        bytes memory signature = _sign(ALICE_KEY, _rotateDigest(NEW_KEY));
        registry = deploy(MIN_AGE, MAX_AGE, FEE, treasury);
        claim("alice", alice, ipv4());
        _refusesRotation(NEW_KEY, alice, signature);
    }

    function test_attack_a_signature_is_used_on_another_name() public {
        bytes memory signature = _sign(ALICE_KEY, _rotateDigest(NEW_KEY));
        tokenId = claim("alice-2", alice, ipv4());
        _refusesRotation(NEW_KEY, alice, signature);
    }

    function test_attack_the_sellers_signature_is_used_after_a_transfer() public {
        bytes memory signature = _sign(ALICE_KEY, _rotateDigest(NEW_KEY));
        vm.prank(alice);
        registry.transferFrom(alice, bob, tokenId);
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.NotAuthorized.selector, tokenId, alice));
        registry.rotateFor(tokenId, NEW_KEY, deadline, alice, signature);
        // Nor does it come back to life with the name.
        vm.prank(bob);
        registry.transferFrom(bob, alice, tokenId);
        _refusesRotation(NEW_KEY, alice, signature);
    }

    function test_attack_a_signature_made_before_a_transfer_guesses_the_nonce() public {
        // Signed in epoch 1 for the nonce that a transfer will bring: the epoch alone tells it apart.
        bytes32 change = keccak256(abi.encode(_rotateType(), tokenId, NEW_KEY, 1, 2, deadline));
        bytes memory signature = _sign(ALICE_KEY, _digest(change));
        vm.prank(alice);
        registry.transferFrom(alice, alice, tokenId);
        vm.assertEq(registry.nonces(tokenId), 2, "nonce");
        _refusesRotation(NEW_KEY, alice, signature);
    }

    function test_attack_a_dismissed_managers_signature_is_used() public {
        _appoint(bob);
        bytes memory signature = _sign(BOB_KEY, _rotateDigest(NEW_KEY));
        _appoint(address(0));
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.NotAuthorized.selector, tokenId, bob));
        registry.rotateFor(tokenId, NEW_KEY, deadline, bob, signature);
        // Appointed again, he has to sign again.
        _appoint(bob);
        _refusesRotation(NEW_KEY, bob, signature);
    }

    function test_attack_the_relayer_changes_what_was_signed() public {
        bytes memory signature = _sign(ALICE_KEY, _recordDigest(ipv4()));
        Record memory record = ipv4();
        record.networkingKey = NEW_KEY;
        _refusesRecord(record, alice, signature);
        record = ipv4();
        record.host = hex"cb007108";
        _refusesRecord(record, alice, signature);
        record = ipv4();
        record.port += 1;
        _refusesRecord(record, alice, signature);
        record = ipv4();
        record.schemes = 1;
        _refusesRecord(record, alice, signature);
        _refusesRecord(dns("a.example"), alice, signature);
        deadline += 1;
        _refusesRecord(ipv4(), alice, signature);
        deadline -= 1;
        _refusesRotation(KEY, alice, signature);
        _setRecordFor(ipv4(), alice, signature);
    }

    function test_attack_a_stranger_signs() public {
        bytes memory signature = _sign(EVE_KEY, _rotateDigest(NEW_KEY));
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.NotAuthorized.selector, tokenId, eve));
        registry.rotateFor(tokenId, NEW_KEY, deadline, eve, signature);
        _refusesRotation(NEW_KEY, alice, signature);
    }

    function test_attack_an_approved_account_signs() public {
        vm.prank(alice);
        registry.setApprovalForAll(eve, true);
        bytes memory signature = _sign(EVE_KEY, _rotateDigest(NEW_KEY));
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.NotAuthorized.selector, tokenId, eve));
        registry.rotateFor(tokenId, NEW_KEY, deadline, eve, signature);
    }

    function test_attack_nobody_signs_for_the_manager_that_is_not_there() public {
        bytes[3] memory signatures = [bytes(""), new bytes(65), abi.encodePacked(bytes32(0), bytes32(0), uint8(27))];
        for (uint256 i; i < signatures.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(INectarRegistry.NotAuthorized.selector, tokenId, address(0)));
            registry.rotateFor(tokenId, NEW_KEY, deadline, address(0), signatures[i]);
        }
    }

    function test_attack_a_malleated_or_cut_signature_is_used() public {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(ALICE_KEY, _rotateDigest(NEW_KEY));
        uint256 order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;
        _refusesRotation(NEW_KEY, alice, abi.encodePacked(r, bytes32(order - uint256(s)), v == 27 ? 28 : 27));
        _refusesRotation(NEW_KEY, alice, abi.encodePacked(r, s));
        _refusesRotation(NEW_KEY, alice, "");
    }

    function test_a_signature_counts_until_its_deadline() public {
        bytes memory signature = _sign(ALICE_KEY, _rotateDigest(NEW_KEY));
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.SignatureExpired.selector, deadline));
        registry.rotateFor(tokenId, NEW_KEY, deadline, alice, signature);
        vm.warp(deadline);
        _rotateFor(NEW_KEY, alice, signature);
    }

    function test_a_sponsored_record_is_checked_like_any_other() public {
        Record memory record = ipv4();
        record.port = 0;
        bytes memory signature = _sign(ALICE_KEY, _recordDigest(record));
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.EndpointInvalid.selector, 0, 3));
        registry.setRecordFor(tokenId, record, deadline, alice, signature);
        signature = _sign(ALICE_KEY, _rotateDigest(0));
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.NetworkingKeyZero.selector, tokenId));
        registry.rotateFor(tokenId, 0, deadline, alice, signature);
    }

    function test_an_unregistered_name_has_no_signer() public {
        tokenId = id("nobody");
        bytes memory signature = _sign(ALICE_KEY, _rotateDigest(NEW_KEY));
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.NameUnknown.selector, tokenId));
        registry.rotateFor(tokenId, NEW_KEY, deadline, alice, signature);
    }

    // Contracts as signers

    function test_a_contract_signs_by_erc_1271() public {
        Wallet wallet = new Wallet(alice);
        _appoint(address(wallet));
        _rotateFor(NEW_KEY, address(wallet), _sign(ALICE_KEY, _rotateDigest(NEW_KEY)));
        vm.assertEq(registry.resolve("alice").networkingKey, NEW_KEY, "key");
        _setRecordFor(ipv6(), address(wallet), _sign(ALICE_KEY, _recordDigest(ipv6())));
        assertResolves("alice", ipv6());

        _refusesRotation(KEY, address(wallet), _sign(EVE_KEY, _rotateDigest(KEY)));
    }

    function test_a_contract_that_does_not_know_erc_1271_cannot_sign() public {
        _appoint(address(registry));
        _refusesRotation(NEW_KEY, address(registry), _sign(ALICE_KEY, _rotateDigest(NEW_KEY)));
    }

    function testFuzz_only_the_exact_signature_counts(uint256 position, uint8 flip) public {
        vm.assume(flip != 0);
        bytes memory signature = _sign(ALICE_KEY, _rotateDigest(NEW_KEY));
        signature[bound(position, 0, 64)] ^= bytes1(flip);
        _refusesRotation(NEW_KEY, alice, signature);
    }

    // Helpers

    function _appoint(address manager) private {
        vm.prank(alice);
        registry.setManager(tokenId, manager);
    }

    function _setRecordFor(Record memory record, address signer, bytes memory signature) private {
        vm.prank(eve);
        registry.setRecordFor(tokenId, record, deadline, signer, signature);
    }

    function _rotateFor(bytes32 key, address signer, bytes memory signature) private {
        vm.prank(eve);
        registry.rotateFor(tokenId, key, deadline, signer, signature);
    }

    function _refusesRecord(Record memory record, address signer, bytes memory signature) private {
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.SignatureInvalid.selector, signer));
        _setRecordFor(record, signer, signature);
    }

    function _refusesRotation(bytes32 key, address signer, bytes memory signature) private {
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.SignatureInvalid.selector, signer));
        _rotateFor(key, signer, signature);
    }

    function _sign(uint256 key, bytes32 digest) private pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    /// @dev The digests are built here from the documented types, not from anything that the contract offers.
    function _recordDigest(Record memory record) private view returns (bytes32) {
        string memory recordType =
            "Record(bytes32 networkingKey,uint8 hostKind,bytes host,uint16 port,uint8 schemes,uint32[] routers)";
        bytes memory setType = abi.encodePacked(
            "SetRecord(uint256 tokenId,Record record,uint32 epoch,uint256 nonce,uint256 deadline)", recordType
        );
        bytes memory routers;
        for (uint256 i; i < record.routers.length; ++i) {
            routers = abi.encodePacked(routers, uint256(record.routers[i]));
        }
        bytes32 recordHash = keccak256(
            abi.encode(
                keccak256(bytes(recordType)),
                record.networkingKey,
                record.hostKind,
                keccak256(record.host),
                record.port,
                record.schemes,
                keccak256(routers)
            )
        );
        (uint256 epoch, uint256 nonce) = _counters();
        return _digest(keccak256(abi.encode(keccak256(setType), tokenId, recordHash, epoch, nonce, deadline)));
    }

    function _rotateDigest(bytes32 key) private view returns (bytes32) {
        (uint256 epoch, uint256 nonce) = _counters();
        return _digest(keccak256(abi.encode(_rotateType(), tokenId, key, epoch, nonce, deadline)));
    }

    function _rotateType() private pure returns (bytes32) {
        return keccak256("RotateKey(uint256 tokenId,bytes32 networkingKey,uint32 epoch,uint256 nonce,uint256 deadline)");
    }

    function _digest(bytes32 change) private view returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Nectar Registry"),
                keccak256("1"),
                block.chainid,
                address(registry)
            )
        );
        return keccak256(abi.encodePacked(hex"1901", domain, change));
    }

    function _counters() private view returns (uint256 epoch, uint256 nonce) {
        uint256 word = uint256(vm.load(address(registry), keccak256(abi.encode(tokenId, 0))));
        return (uint32(word >> 64), registry.nonces(tokenId));
    }
}

/// @notice A contract account with one key.
contract Wallet is IERC1271 {
    address private immutable signer;

    constructor(address signer_) {
        signer = signer_;
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        (address recovered,,) = ECDSA.tryRecoverCalldata(digest, signature);
        return recovered == signer ? IERC1271.isValidSignature.selector : bytes4(0);
    }
}
