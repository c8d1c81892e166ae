// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Record} from "../src/INectarRegistry.sol";
import {RegistryTest} from "./support/RegistryTest.sol";

/// @notice Whole transactions, written to `snapshots/`. `script/check-gas.mjs` sends the same ones, byte for byte, to a
/// node and compares receipts: change both together.
contract GasTest is RegistryTest {
    address private constant OWNER = 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266;
    address private constant BUYER = 0x70997970C51812dc3A010C7d01b50e0d17dc79C8;
    address private constant ROUTERS_OWNER = 0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC;

    function setUp() public override {
        super.setUp();
        registry = deploy(MIN_AGE, MAX_AGE, 0, payable(address(0)));
    }

    function test_gas_of_registering_an_ipv4_record() public {
        _register(OWNER, "satellite", ipv4());
        _within("register_ipv4", 160_000);
    }

    function test_gas_of_registering_a_dns_record_of_an_extra_slot() public {
        _register(OWNER, "satellite", dns("satellite.operators.nectar-nodes.example"));
        _within("register_dns", 180_000);
    }

    function test_gas_of_registering_with_eight_routers() public {
        uint32[] memory routers = new uint32[](8);
        for (uint256 i; i < 8; ++i) {
            uint256 tokenId = _register(ROUTERS_OWNER, routerLabel(i), ipv4());
            vm.prank(ROUTERS_OWNER);
            routers[i] = registry.enlist(tokenId);
        }
        _register(OWNER, "satellite", indirect(routers));
        _within("register_8_routers", 200_000);
    }

    function test_gas_of_rotating_a_key() public {
        uint256 tokenId = _register(OWNER, "satellite", ipv4());
        vm.prank(OWNER);
        registry.rotateKey(tokenId, keccak256("new"));
        _within("rotate_key", 38_000);
    }

    function test_gas_of_a_transfer() public {
        uint256 tokenId = _register(OWNER, "satellite", ipv4());
        vm.prank(OWNER);
        registry.transferFrom(OWNER, BUYER, tokenId);
        _within("transfer", 65_000);
    }

    // Without a goal: what the goals above leave out.

    function test_gas_of_the_longest_dns_name() public {
        _register(OWNER, "satellite", dns("satellite.in-a-long-label.of-operators.nectar-nodes-host.example"));
        _within("register_dns_64", type(uint256).max);
    }

    function test_gas_of_registering_for_a_fee() public {
        registry = deploy(MIN_AGE, MAX_AGE, FEE, payable(BUYER));
        vm.deal(OWNER, FEE);
        vm.deal(BUYER, 1);
        registry.commit(registry.makeCommitment("satellite", OWNER, ipv4(), SALT));
        skip(MIN_AGE);
        vm.prank(OWNER);
        registry.register{value: FEE}("satellite", OWNER, ipv4(), SALT);
        _within("register_ipv4_for_a_fee", type(uint256).max);
    }

    function test_gas_of_enlisting_a_router() public {
        uint256 tokenId = _register(OWNER, "satellite", ipv4());
        vm.prank(OWNER);
        registry.enlist(tokenId);
        _within("enlist_first", type(uint256).max);
    }

    function _register(address owner, string memory label, Record memory record) private returns (uint256) {
        registry.commit(registry.makeCommitment(label, owner, record, SALT));
        skip(MIN_AGE);
        vm.prank(owner);
        return registry.register(label, owner, record, SALT);
    }

    function _within(string memory name, uint256 goal) private {
        vm.assertEq(vm.snapshotGasLastCall("NectarRegistry", name) <= goal, true, name);
    }
}
