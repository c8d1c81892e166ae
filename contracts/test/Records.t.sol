// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {INectarRegistry, Record, Resolved} from "../src/INectarRegistry.sol";
import {RegistryTest} from "./support/RegistryTest.sol";

/// @notice What a record may hold, and where it lies.
contract RecordsTest is RegistryTest {
    string internal constant DNS_64 = "a-rather-long-label.of-a-name.that-fills-both-slots.example.orgs";

    function setUp() public override {
        super.setUp();
        claim("alice", alice, ipv4());
    }

    function test_each_kind_of_record_comes_back_as_set() public {
        uint32[] memory routers = enlistRouters(8);
        _sets(ipv6());
        _sets(dns("a"));
        _sets(dns("localhost"));
        _sets(dns("node-1.example.org"));
        _sets(dns("abcdefghijkl.example")); // 20 bytes
        _sets(dns("abcdefghijklm.example")); // 21 bytes
        _sets(dns("abcdefghijklmnopqrstuvwxyz.abcdefghijklmnopq.example")); // 52 bytes
        _sets(dns("abcdefghijklmnopqrstuvwxyz.abcdefghijklmnopqr.example")); // 53 bytes
        _sets(dns(DNS_64));
        _sets(indirect(routers));
        _sets(ipv4());
        _sets(indirect(new uint32[](0)));
    }

    function test_nothing_of_a_longer_host_shows_in_a_shorter_one() public {
        _sets(dns(DNS_64));
        _sets(dns("a.example"));
        _sets(dns("abcdefghijklm.example"));
        _sets(dns(DNS_64));
        _sets(ipv4());
        _sets(dns("b.example"));
    }

    function test_nothing_of_old_routers_shows_in_a_newer_record() public {
        uint32[] memory routers = enlistRouters(8);
        _sets(indirect(routers));
        uint32[] memory two = new uint32[](2);
        (two[0], two[1]) = (7, 2);
        _sets(indirect(two));
        _sets(ipv4());
        _sets(indirect(new uint32[](0)));
    }

    function test_every_change_counts_the_version() public {
        vm.expectEmit(address(registry));
        emit INectarRegistry.RecordChanged(id("alice"), 2, 1);
        vm.prank(alice);
        registry.setRecord(id("alice"), ipv6());

        vm.expectEmit(address(registry));
        emit INectarRegistry.RecordChanged(id("alice"), 3, 1);
        vm.prank(alice);
        registry.rotateKey(id("alice"), keccak256("new"));

        vm.expectEmit(address(registry));
        emit INectarRegistry.ManagerChanged(id("alice"), bob);
        vm.expectEmit(address(registry));
        emit INectarRegistry.RecordChanged(id("alice"), 4, 1);
        vm.prank(alice);
        registry.setManager(id("alice"), bob);

        vm.expectEmit(address(registry));
        emit INectarRegistry.ManagerChanged(id("alice"), address(0));
        vm.expectEmit(address(registry));
        emit INectarRegistry.RecordChanged(id("alice"), 5, 2);
        vm.prank(alice);
        registry.transferFrom(alice, eve, id("alice"));
    }

    function test_a_rotated_key_changes_the_key_only() public {
        Record memory record = dns(DNS_64);
        _sets(record);
        record.networkingKey = keccak256("new");
        vm.prank(alice);
        registry.rotateKey(id("alice"), record.networkingKey);
        assertResolves("alice", record);
    }

    // What is refused

    function test_a_zero_key_is_refused() public {
        Record memory record = ipv4();
        record.networkingKey = 0;
        _refuses(record, abi.encodeWithSelector(INectarRegistry.NetworkingKeyZero.selector, id("alice")));
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.NetworkingKeyZero.selector, id("alice")));
        vm.prank(alice);
        registry.rotateKey(id("alice"), 0);
    }

    function test_a_host_of_another_form_than_its_kind_is_refused() public {
        _refusesHost(1, "");
        _refusesHost(1, hex"cb0071");
        _refusesHost(1, hex"cb00710700");
        _refusesHost(1, ipv6().host);
        _refusesHost(2, ipv4().host);
        _refusesHost(2, "");
        _refusesHost(3, "");
        _refusesHost(4, "a.example");
        _refusesHost(255, "");
    }

    function test_every_rule_of_dns_names() public {
        _refusesHost(3, "A.example");
        _refusesHost(3, "a.example.");
        _refusesHost(3, ".example");
        _refusesHost(3, "a..example");
        _refusesHost(3, "-a.example");
        _refusesHost(3, "a-.example");
        _refusesHost(3, "a.-example");
        _refusesHost(3, "a.example-");
        _refusesHost(3, "a_b.example");
        _refusesHost(3, "a b.example");
        _refusesHost(3, "a.example/x");
        _refusesHost(3, "user@a.example");
        _refusesHost(3, "a.example:80");
        _refusesHost(3, "[::1]");
        _refusesHost(3, "127.0.0.1");
        _refusesHost(3, "0x7f.1");
        _refusesHost(3, "2130706433");
        _refusesHost(3, "1.0x7f000001");
        _refusesHost(3, bytes(unicode"bücher.example"));
        _refusesHost(3, hex"612e00");
        _refusesHost(3, ".");
        _refusesHost(3, "-");
        _refusesHost(3, "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz01"); // a label of 64
        _refusesHost(3, "a-rather-long-label.of-a-name.that-fills-both-slots.example.orgss"); // 65 bytes
        _sets(dns("abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0")); // a label of 63
        _sets(dns("1.2.3.a4"));
        _sets(dns("xn--bcher-kva.example"));
    }

    function test_a_direct_record_needs_a_port_and_known_schemes() public {
        Record memory record = ipv4();
        record.port = 0;
        _refuses(record, abi.encodeWithSelector(INectarRegistry.EndpointInvalid.selector, 0, 3));
        record.port = 1;
        record.schemes = 0;
        _refuses(record, abi.encodeWithSelector(INectarRegistry.EndpointInvalid.selector, 1, 0));
        record.schemes = 4;
        _refuses(record, abi.encodeWithSelector(INectarRegistry.EndpointInvalid.selector, 1, 4));
        for (record.schemes = 1; record.schemes < 4; ++record.schemes) {
            _sets(record);
        }
    }

    function test_an_indirect_record_has_no_address() public {
        Record memory record = indirect(new uint32[](0));
        record.host = hex"cb007107";
        _refuses(record, abi.encodeWithSelector(INectarRegistry.IndirectWithAddress.selector, record.host, 0, 0));
        record.host = "";
        record.port = 80;
        _refuses(record, abi.encodeWithSelector(INectarRegistry.IndirectWithAddress.selector, "", 80, 0));
        record.port = 0;
        record.schemes = 1;
        _refuses(record, abi.encodeWithSelector(INectarRegistry.IndirectWithAddress.selector, "", 0, 1));
    }

    function test_a_direct_record_has_no_routers() public {
        Record memory record = ipv4();
        record.routers = enlistRouters(2);
        _refuses(record, abi.encodeWithSelector(INectarRegistry.DirectWithRouters.selector, 2));
    }

    function test_nine_routers_are_refused() public {
        Record memory record = indirect(enlistRouters(9));
        _refuses(record, abi.encodeWithSelector(INectarRegistry.TooManyRouters.selector, 9, 8));
    }

    function test_a_router_twice_is_refused_wherever_it_stands() public {
        uint32[] memory enlisted = enlistRouters(8);
        for (uint32 first; first < 8; ++first) {
            for (uint32 second = first + 1; second < 8; ++second) {
                uint32 kept = enlisted[second];
                enlisted[second] = enlisted[first];
                _refuses(
                    indirect(enlisted),
                    abi.encodeWithSelector(INectarRegistry.RouterDuplicate.selector, enlisted[first])
                );
                enlisted[second] = kept;
            }
        }
        _sets(indirect(enlisted));
    }

    function test_a_router_that_was_not_enlisted_is_refused() public {
        uint32[] memory routers = new uint32[](1);
        routers[0] = 1;
        _refuses(indirect(routers), abi.encodeWithSelector(INectarRegistry.RouterUnknown.selector, 1));
        enlistRouters(1);
        _sets(indirect(routers));
        uint32[3] memory unknown = [0, 2, type(uint32).max];
        for (uint256 i; i < unknown.length; ++i) {
            routers[0] = unknown[i];
            _refuses(indirect(routers), abi.encodeWithSelector(INectarRegistry.RouterUnknown.selector, unknown[i]));
        }
    }

    function test_registration_checks_the_record_too() public {
        Record memory record = ipv4();
        record.port = 0;
        registry.commit(registry.makeCommitment("bob", bob, record, SALT));
        skip(MIN_AGE);
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.EndpointInvalid.selector, 0, 3));
        vm.prank(bob);
        registry.register{value: FEE}("bob", bob, record, SALT);
    }

    // Routers

    function test_a_router_with_the_longest_label_is_listed_by_it() public {
        string memory label = "the-longest-label-that-there-can-be-is-sixty-three-bytes-long-7";
        vm.assertEq(bytes(label).length, 63, "length");
        uint256 router = claim(label, bob, ipv4());
        vm.prank(bob);
        registry.enlist(router);
        uint32[] memory routers = new uint32[](1);
        routers[0] = 1;
        _sets(indirect(routers));
        vm.assertEq(registry.resolve("alice").routers[0], label, "label");
    }

    function test_a_name_is_enlisted_once() public {
        vm.expectEmit(address(registry));
        emit INectarRegistry.RouterEnlisted(id("alice"), 1);
        vm.prank(alice);
        vm.assertEq(registry.enlist(id("alice")), 1, "index");
        vm.assertEq(registry.indexOf(id("alice")), 1, "indexOf");
        vm.assertEq(registry.enlistedAt(1), id("alice"), "enlistedAt");
        vm.assertEq(registry.routerCount(), 1, "routerCount");

        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.AlreadyEnlisted.selector, id("alice"), 1));
        vm.prank(alice);
        registry.enlist(id("alice"));
    }

    function test_an_index_stays_with_a_name_that_is_sold() public {
        vm.prank(alice);
        registry.enlist(id("alice"));
        vm.prank(alice);
        registry.transferFrom(alice, bob, id("alice"));
        vm.assertEq(registry.indexOf(id("alice")), 1, "indexOf");
        vm.expectRevert(abi.encodeWithSelector(INectarRegistry.AlreadyEnlisted.selector, id("alice"), 1));
        vm.prank(bob);
        registry.enlist(id("alice"));
    }

    // Storage

    function test_a_direct_record_lies_where_the_documentation_says() public {
        Record memory record = dns(DNS_64);
        record.port = 0x1234;
        record.schemes = 2;
        _sets(record);

        uint256 base = uint256(keccak256(abi.encode(id("alice"), 0)));
        vm.assertEq(
            _word(base),
            bytes32(
                abi.encodePacked("a-rather-long-label.", uint32(1), uint32(2), uint16(0x1234), uint8(3), uint8(0xfe))
            ),
            "host, epoch, version, port, kind, length and schemes"
        );
        vm.assertEq(_word(base + 1), KEY, "key");
        vm.assertEq(_word(base + 2), bytes32("of-a-name.that-fills-both-slots."), "host, 20 to 51");
        vm.assertEq(_word(base + 3), bytes32("example.orgs"), "host, 52 to 63");
    }

    function test_an_address_lies_in_one_slot_with_the_counters() public {
        uint256 base = uint256(keccak256(abi.encode(id("alice"), 0)));
        bytes memory rest = abi.encodePacked(uint32(1), uint32(1), uint16(9000), uint8(1), uint8(3 << 2 | 3));
        vm.assertEq(_word(base), bytes32(abi.encodePacked(hex"cb007107", bytes16(0), rest)), "IPv4");
        _sets(ipv6());
        rest = abi.encodePacked(uint32(1), uint32(2), uint16(9000), uint8(2), uint8(15 << 2 | 3));
        vm.assertEq(_word(base), bytes32(abi.encodePacked(ipv6().host, bytes4(0), rest)), "IPv6");
        vm.assertEq(_word(base + 2), bytes32(0), "no third slot");
    }

    function test_routers_lie_where_the_documentation_says() public {
        enlistRouters(3);
        uint32[] memory routers = new uint32[](3);
        (routers[0], routers[1], routers[2]) = (3, 1, 2);
        _sets(indirect(routers));
        bytes32 slot = keccak256(abi.encode(1, keccak256(abi.encode(id("alice"), 1))));
        vm.assertEq(_word(uint256(slot)), bytes32(abi.encodePacked(uint32(3), uint32(1), uint32(2))), "routers");
    }

    function test_manager_label_index_and_owner_lie_where_the_documentation_says() public {
        enlistRouters(2);
        uint256 router = id(routerLabel(1));
        vm.prank(bob);
        registry.setManager(router, eve);
        bytes32 manager = keccak256(abi.encode(1, keccak256(abi.encode(router, 2))));
        vm.assertEq(_word(uint256(manager)), bytes32(uint256(uint160(eve))), "manager");
        bytes32 short = bytes32(abi.encodePacked("router-1", bytes23(0), uint8(16)));
        vm.assertEq(_word(uint256(keccak256(abi.encode(router, 3)))), short, "label");
        vm.assertEq(_word(uint256(keccak256(abi.encode(router, 4)))), bytes32(uint256(2)), "indexOf");
        vm.assertEq(_word(uint256(keccak256(abi.encode(2, 5)))), bytes32(router), "enlistedAt");
        vm.assertEq(_word(6), bytes32(uint256(2)), "routerCount");
        vm.assertEq(_word(uint256(keccak256(abi.encode(router, 9)))), bytes32(uint256(uint160(bob))), "owner");
    }

    function test_a_transfer_clears_two_slots_but_for_the_counters() public {
        uint256 base = uint256(keccak256(abi.encode(id("alice"), 0)));
        vm.prank(alice);
        registry.setManager(id("alice"), bob);
        vm.prank(alice);
        registry.transferFrom(alice, eve, id("alice"));
        bytes32 counters = bytes32(abi.encodePacked(bytes20(0), uint32(2), uint32(3), uint32(0)));
        vm.assertEq(_word(base), counters, "slot 0");
        vm.assertEq(_word(base + 1), bytes32(0), "slot 1");
    }

    // Fuzz

    function testFuzz_any_valid_record_comes_back_as_set(
        uint256 kind,
        bytes32 key,
        bytes16 address6,
        uint256 port,
        uint256 schemes,
        uint256 length
    ) public {
        vm.assume(key != 0);
        Record memory record = ipv4();
        record.networkingKey = key;
        record.hostKind = uint8(bound(kind, 1, 3));
        record.port = uint16(bound(port, 1, type(uint16).max));
        record.schemes = uint8(bound(schemes, 1, 3));
        if (record.hostKind == 1) record.host = abi.encodePacked(bytes4(address6));
        if (record.hostKind == 2) record.host = abi.encodePacked(address6);
        if (record.hostKind == 3) {
            record.host = new bytes(bound(length, 1, 64));
            // A dot at every fourth place, letters between them and at both ends.
            for (uint256 i; i < record.host.length; ++i) {
                bool dot = i % 4 == 3 && i + 1 < record.host.length;
                record.host[i] = dot ? bytes1(".") : bytes1(uint8(97 + uint8(address6[i % 16]) % 26));
            }
        }
        _sets(record);
    }

    function testFuzz_any_host_is_stored_as_given_or_refused(uint8 kind, bytes memory host) public {
        Record memory record = direct(uint8(bound(kind, 1, 4)), host);
        vm.prank(alice);
        try registry.setRecord(id("alice"), record) {
            assertResolves("alice", record);
        } catch (bytes memory reason) {
            vm.assertEq(
                reason, abi.encodeWithSelector(INectarRegistry.HostInvalid.selector, record.hostKind, host), "reason"
            );
        }
    }

    function testFuzz_any_choice_of_routers_comes_back_in_order(uint256 shuffle, uint256 count) public {
        uint32[] memory enlisted = enlistRouters(10);
        uint32[] memory routers = new uint32[](bound(count, 0, 8));
        for (uint256 i; i < routers.length; ++i) {
            uint256 pick = i + uint256(keccak256(abi.encode(shuffle, i))) % (enlisted.length - i);
            routers[i] = enlisted[pick];
            enlisted[pick] = enlisted[i];
        }
        _sets(indirect(routers));
    }

    function _sets(Record memory record) private {
        vm.prank(alice);
        registry.setRecord(id("alice"), record);
        assertResolves("alice", record);
    }

    function _refuses(Record memory record, bytes memory reason) private {
        vm.expectRevert(reason);
        vm.prank(alice);
        registry.setRecord(id("alice"), record);
    }

    function _refusesHost(uint8 kind, bytes memory host) private {
        _refuses(direct(kind, host), abi.encodeWithSelector(INectarRegistry.HostInvalid.selector, kind, host));
    }

    function _word(uint256 slot) private view returns (bytes32) {
        return vm.load(address(registry), bytes32(slot));
    }
}
