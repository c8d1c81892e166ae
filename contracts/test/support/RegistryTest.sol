// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC721Metadata} from "@openzeppelin/contracts/token/ERC721/extensions/IERC721Metadata.sol";
import {INectarRegistry, Record, Resolved} from "../../src/INectarRegistry.sol";
import {Test} from "./Test.sol";

/// @notice The registry as the world sees it.
interface Registry is INectarRegistry, IERC721Metadata {}

/// @notice A registry, some people, and ways to make records and names.
abstract contract RegistryFixture is Test {
    uint64 internal constant MIN_AGE = 60;
    uint64 internal constant MAX_AGE = 1 days;
    uint256 internal constant FEE = 0.01 ether;
    bytes32 internal constant SALT = keccak256("salt");
    bytes32 internal constant KEY = keccak256("key");

    uint256 internal constant ALICE_KEY = 0xA11CE;
    uint256 internal constant BOB_KEY = 0xB0B;
    uint256 internal constant EVE_KEY = 0xE5E;
    address internal alice = vm.addr(ALICE_KEY);
    address internal bob = vm.addr(BOB_KEY);
    address internal eve = vm.addr(EVE_KEY);
    address payable internal treasury = payable(address(0x7EA5));

    Registry internal registry;

    /// @dev A new registry with the given constructor arguments, or its revert.
    function deploy(uint64 minAge, uint64 maxAge, uint256 fee, address payable payee) internal returns (Registry) {
        return _create(vm.getCode("NectarRegistry.sol:NectarRegistry"), abi.encode(minAge, maxAge, fee, payee));
    }

    function _create(bytes memory code, bytes memory arguments) internal returns (Registry created) {
        bytes memory init = bytes.concat(code, arguments);
        assembly ("memory-safe") {
            created := create(0, add(init, 0x20), mload(init))
            if iszero(created) {
                let reason := mload(0x40)
                returndatacopy(reason, 0, returndatasize())
                revert(reason, returndatasize())
            }
        }
    }

    /// @dev Commits, waits and reveals; `owner` pays.
    function claim(string memory label, address owner, Record memory record) internal returns (uint256 tokenId) {
        registry.commit(registry.makeCommitment(label, owner, record, SALT));
        skip(MIN_AGE);
        vm.prank(owner);
        return registry.register{value: FEE}(label, owner, record, SALT);
    }

    /// @dev Registers and enlists `count` routers for bob; their indices are 1 to `count` on a fresh registry.
    function enlistRouters(uint256 count) internal returns (uint32[] memory indices) {
        indices = new uint32[](count);
        for (uint256 i; i < count; ++i) {
            uint256 tokenId = claim(routerLabel(i), bob, ipv4());
            vm.prank(bob);
            indices[i] = registry.enlist(tokenId);
        }
    }

    function routerLabel(uint256 i) internal pure returns (string memory) {
        return string.concat("router-", vm.toString(i));
    }

    function ipv4() internal pure returns (Record memory) {
        return direct(1, hex"cb007107");
    }

    function ipv6() internal pure returns (Record memory) {
        return direct(2, hex"20010db8000000000000000000000001");
    }

    function dns(string memory host) internal pure returns (Record memory) {
        return direct(3, bytes(host));
    }

    function direct(uint8 hostKind, bytes memory host) internal pure returns (Record memory) {
        return Record(KEY, hostKind, host, 9000, 3, new uint32[](0));
    }

    function indirect(uint32[] memory routers) internal pure returns (Record memory) {
        return Record(KEY, 0, "", 0, 0, routers);
    }

    function id(string memory label) internal pure returns (uint256) {
        return uint256(keccak256(bytes(label)));
    }

    function assertResolves(string memory label, Record memory record) internal view {
        Resolved memory got = registry.resolve(label);
        vm.assertEq(got.networkingKey, record.networkingKey, "networkingKey");
        vm.assertEq(got.hostKind, record.hostKind, "hostKind");
        vm.assertEq(got.host, record.host, "host");
        vm.assertEq(got.port, record.port, "port");
        vm.assertEq(got.schemes, record.schemes, "schemes");
        vm.assertEq(got.routers.length, record.routers.length, "router count");
        for (uint256 i; i < got.routers.length; ++i) {
            string memory listed = registry.labelOf(registry.enlistedAt(record.routers[i]));
            vm.assertEq(got.routers[i], listed, "router");
        }
    }

    /// @dev That a name has an owner, and otherwise nothing but its counters.
    function assertCleared(string memory label, address owner) internal view {
        Resolved memory got = registry.resolve(label);
        vm.assertEq(got.owner, owner, "owner");
        vm.assertEq(got.manager, address(0), "manager");
        vm.assertEq(got.networkingKey, bytes32(0), "networkingKey");
        vm.assertEq(got.hostKind, 0, "hostKind");
        vm.assertEq(got.host, "", "host");
        vm.assertEq(got.port, 0, "port");
        vm.assertEq(got.schemes, 0, "schemes");
        vm.assertEq(got.routers.length, 0, "routers");
    }
}

/// @notice What a test contract inherits.
abstract contract RegistryTest is RegistryFixture {
    function setUp() public virtual {
        vm.warp(1_800_000_000);
        registry = deploy(MIN_AGE, MAX_AGE, FEE, treasury);
        vm.deal(alice, 100 ether);
        vm.deal(bob, 100 ether);
        vm.deal(eve, 100 ether);
    }
}
