// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {INectarRegistry, Record, Resolved} from "./INectarRegistry.sol";
import {Hosts} from "./Hosts.sol";

/// @title Where records lie
/// @notice The layout is part of the registry's interface: light nodes read it with `eth_getProof`. It must stay the
/// first base of the registry, so that its variables begin at storage slot 0.
///
/// With `h` the name's hash (the token id) and `‖` joining 32-byte words, a name's four slots begin at
/// `b = keccak256(h ‖ 0)`:
///
///     b + 0   manager 20 ‖ epoch 4 ‖ version 4 ‖ port 2 ‖ hostKind 1 ‖ schemes 1      (from the left)
///     b + 1   networkingKey
///     b + 2   host, bytes 0 to 31, zeros after its end       counts unless hostKind = 0
///     b + 3   host, bytes 32 to 63, zeros after its end      counts if hostKind = 3
///
/// A slot that does not count may hold what an older record left there. A name is registered if its version is not
/// zero. IPv4 is 4 bytes, IPv6 is 16, and a DNS name ends before its first zero byte. The routers count if
/// hostKind = 0; they are eight 4-byte indices from the left, zeros after the last, at
/// `keccak256(epoch ‖ keccak256(h ‖ 1))`.
abstract contract RecordStore is INectarRegistry {
    /// @notice Most routers of one record: what one storage slot holds.
    uint256 internal constant MAX_ROUTERS = 8;

    /// @dev Solidity packs a slot from the right, hence the order.
    struct Slots {
        uint8 schemes;
        uint8 hostKind;
        uint16 port;
        uint32 version;
        uint32 epoch;
        address manager;
        bytes32 networkingKey;
        bytes32 hostStart;
        bytes32 hostEnd;
    }

    /// @dev Storage slot 0.
    mapping(uint256 tokenId => Slots) internal _slots;
    /// @dev Storage slot 1. Keyed by epoch too, so that a transfer clears them without a write.
    mapping(uint256 tokenId => mapping(uint32 epoch => uint256)) internal _packedRouters;
    /// @dev Storage slot 2.
    mapping(uint256 tokenId => string) internal _labels;
    /// @inheritdoc INectarRegistry
    /// @dev Storage slot 3.
    mapping(uint256 tokenId => uint32) public indexOf;
    /// @inheritdoc INectarRegistry
    /// @dev Storage slot 4.
    mapping(uint32 index => uint256) public enlistedAt;
    /// @inheritdoc INectarRegistry
    /// @dev Storage slot 5.
    uint32 public routerCount;

    /// @dev Replaces the record, after checking it.
    function _setRecord(uint256 tokenId, Record calldata record) internal {
        Slots storage slots = _slots[tokenId];
        uint8 hostKind = record.hostKind;
        if (hostKind == Hosts.INDIRECT) {
            if (record.host.length != 0 || record.port != 0 || record.schemes != 0) {
                revert IndirectWithAddress(record.host, record.port, record.schemes);
            }
            _setRouters(tokenId, slots.epoch, record.routers);
        } else {
            _setHost(slots, record);
        }
        slots.hostKind = hostKind;
        slots.port = record.port;
        slots.schemes = record.schemes;
        _setKey(tokenId, record.networkingKey);
    }

    /// @dev Replaces the key: the last step of every change of a record, so it counts the version and tells.
    function _setKey(uint256 tokenId, bytes32 key) internal {
        if (key == 0) revert NetworkingKeyZero(tokenId);
        _slots[tokenId].networkingKey = key;
        _changed(tokenId);
    }

    /// @dev Replaces the manager.
    function _setManager(uint256 tokenId, address manager) internal {
        _slots[tokenId].manager = manager;
        emit ManagerChanged(tokenId, manager);
        _changed(tokenId);
    }

    /// @dev Ends an epoch: two slots, however much the record held. Host and routers stop counting, since the kind
    /// becomes indirect and routers are keyed by epoch.
    function _clear(uint256 tokenId) internal {
        Slots storage slots = _slots[tokenId];
        slots.hostKind = Hosts.INDIRECT;
        slots.port = 0;
        slots.schemes = 0;
        slots.networkingKey = 0;
        slots.epoch += 1;
        if (slots.manager != address(0)) {
            slots.manager = address(0);
            emit ManagerChanged(tokenId, address(0));
        }
        _changed(tokenId);
    }

    /// @dev Everything about a registered name.
    function _resolved(uint256 tokenId, address owner) internal view returns (Resolved memory) {
        Slots storage slots = _slots[tokenId];
        return Resolved({
            owner: owner,
            manager: slots.manager,
            networkingKey: slots.networkingKey,
            hostKind: slots.hostKind,
            host: _host(slots),
            port: slots.port,
            schemes: slots.schemes,
            routers: slots.hostKind == Hosts.INDIRECT ? _routers(tokenId, slots.epoch) : new string[](0),
            version: slots.version,
            epoch: slots.epoch
        });
    }

    function _changed(uint256 tokenId) private {
        Slots storage slots = _slots[tokenId];
        uint32 version = slots.version + 1;
        slots.version = version;
        emit RecordChanged(tokenId, version, slots.epoch);
    }

    function _setHost(Slots storage slots, Record calldata record) private {
        bytes calldata host = record.host;
        if (!Hosts.isValid(record.hostKind, host)) revert HostInvalid(record.hostKind, host);
        if (record.port == 0 || record.schemes == 0 || record.schemes > 3) {
            revert EndpointInvalid(record.port, record.schemes);
        }
        if (record.routers.length != 0) revert DirectWithRouters(record.routers.length);

        slots.hostStart = bytes32(host);
        if (record.hostKind == Hosts.DNS) slots.hostEnd = host.length > 32 ? bytes32(host[32:]) : bytes32(0);
    }

    function _setRouters(uint256 tokenId, uint32 epoch, uint32[] calldata routers) private {
        uint256 count = routers.length;
        if (count > MAX_ROUTERS) revert TooManyRouters(count, MAX_ROUTERS);

        uint256 packed;
        // Indices are given without gaps and never taken back, so one comparison tells whether one exists.
        uint256 highest = count == 0 ? 0 : routerCount;
        for (uint256 i; i < count; ++i) {
            uint32 index = routers[i];
            if (index == 0 || index > highest) revert RouterUnknown(index);
            for (uint256 earlier = packed; earlier != 0; earlier >>= 32) {
                if (uint32(earlier) == index) revert RouterDuplicate(index);
            }
            packed = packed << 32 | index;
        }
        _packedRouters[tokenId][epoch] = packed << 32 * (MAX_ROUTERS - count);
    }

    function _host(Slots storage slots) private view returns (bytes memory host) {
        uint8 kind = slots.hostKind;
        if (kind == Hosts.IPV4) return abi.encodePacked(bytes4(slots.hostStart));
        if (kind == Hosts.IPV6) return abi.encodePacked(bytes16(slots.hostStart));
        if (kind == Hosts.DNS) {
            host = abi.encodePacked(slots.hostStart, slots.hostEnd);
            uint256 length;
            while (length < host.length && host[length] != 0) ++length;
            assembly ("memory-safe") {
                mstore(host, length)
            }
        }
    }

    function _routers(uint256 tokenId, uint32 epoch) private view returns (string[] memory routers) {
        uint256 packed = _packedRouters[tokenId][epoch];
        uint256 count;
        while (count < MAX_ROUTERS && packed << 32 * count != 0) ++count;
        routers = new string[](count);
        for (uint256 i; i < count; ++i) {
            routers[i] = _labels[enlistedAt[uint32(packed >> 32 * (MAX_ROUTERS - 1 - i))]];
        }
    }
}
