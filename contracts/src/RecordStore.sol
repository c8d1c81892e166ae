// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {INectarRegistry, Record, Resolved} from "./INectarRegistry.sol";
import {Hosts} from "./Hosts.sol";

/// @title Where records lie
/// @notice The layout is part of the registry's interface: light nodes read it with `eth_getProof`. It must stay the
/// first base of the registry, so that its variables begin at storage slot 0.
///
/// With `h` the name's hash (the token id) and `‖` joining words, a name's four slots begin at `b = keccak256(h ‖ 0)`;
/// their parts stand from the left, and host bytes are followed by zeros up to the end of their part:
///
///     b + 0   host, bytes 0 to 19 ‖ epoch 4 ‖ version 4 ‖ port 2 ‖ hostKind 1 ‖ flags 1
///     b + 1   networkingKey
///     b + 2   host, bytes 20 to 51     counts if the host is longer than 20 bytes
///     b + 3   host, bytes 52 to 63     counts if the host is longer than 52 bytes
///
/// flags: bits 0 and 1 = schemes; bits 2 to 7 = length of the host - 1 (all zero if hostKind = 0). So slot 0 tells which
/// slots count: an address needs two, a DNS name at most four. One that does not count may hold what an older record left.
/// A name is registered if its version is not zero.
///
/// By (h, epoch), so that a transfer clears them without a write:
///
///     keccak256(epoch ‖ keccak256(h ‖ 1))   routers: eight 4-byte indices from the left, zeros after the last;
///                                           count if hostKind = 0
///     keccak256(epoch ‖ keccak256(h ‖ 2))   manager
abstract contract RecordStore is INectarRegistry {
    /// @notice Most routers of one record: what one storage slot holds.
    uint256 internal constant MAX_ROUTERS = 8;

    /// @dev Solidity packs a slot from the right, hence the order. The manager is not here: few names have one, and in
    /// its place an address costs no slot of its own.
    struct Slots {
        uint8 flags;
        uint8 hostKind;
        uint16 port;
        uint32 version;
        uint32 epoch;
        bytes20 hostStart;
        bytes32 networkingKey;
        bytes32 hostMiddle;
        bytes32 hostEnd;
    }

    /// @dev Storage slot 0.
    mapping(uint256 tokenId => Slots) internal _slots;
    /// @dev Storage slot 1.
    mapping(uint256 tokenId => mapping(uint32 epoch => uint256)) internal _packedRouters;
    /// @dev Storage slot 2.
    mapping(uint256 tokenId => mapping(uint32 epoch => address)) internal _managers;
    /// @dev Storage slot 3.
    mapping(uint256 tokenId => string) internal _labels;
    /// @inheritdoc INectarRegistry
    /// @dev Storage slot 4.
    mapping(uint256 tokenId => uint32) public indexOf;
    /// @inheritdoc INectarRegistry
    /// @dev Storage slot 5.
    mapping(uint32 index => uint256) public enlistedAt;
    /// @inheritdoc INectarRegistry
    /// @dev Storage slot 6.
    uint32 public routerCount;

    /// @dev Replaces the record, after checking it.
    function _setRecord(uint256 tokenId, Record calldata record) internal {
        Slots storage slots = _slots[tokenId];
        if (record.hostKind == Hosts.INDIRECT) {
            if (record.host.length != 0 || record.port != 0 || record.schemes != 0) {
                revert IndirectWithAddress(record.host, record.port, record.schemes);
            }
            _setEndpoint(slots, Hosts.INDIRECT, "", 0, 0);
            _setRouters(tokenId, slots.epoch, record.routers);
        } else {
            if (!Hosts.isValid(record.hostKind, record.host)) revert HostInvalid(record.hostKind, record.host);
            if (record.port == 0 || record.schemes == 0 || record.schemes > 3) {
                revert EndpointInvalid(record.port, record.schemes);
            }
            if (record.routers.length != 0) revert DirectWithRouters(record.routers.length);
            uint256 length = record.host.length;
            _setEndpoint(
                slots, record.hostKind, bytes20(record.host), record.port, uint8((length - 1) << 2 | record.schemes)
            );
            if (length > 20) slots.hostMiddle = bytes32(record.host[20:]);
            if (length > 52) slots.hostEnd = bytes32(record.host[52:]);
        }
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
        _managers[tokenId][_slots[tokenId].epoch] = manager;
        emit ManagerChanged(tokenId, manager);
        _changed(tokenId);
    }

    /// @dev Ends an epoch: two slots, however much the record held. The rest of the host stops counting, since the kind
    /// becomes indirect, and routers and manager are keyed by epoch.
    function _clear(uint256 tokenId) internal {
        Slots storage slots = _slots[tokenId];
        uint32 epoch = slots.epoch;
        _setEndpoint(slots, Hosts.INDIRECT, "", 0, 0);
        slots.epoch = epoch + 1;
        slots.networkingKey = 0;
        if (_managers[tokenId][epoch] != address(0)) emit ManagerChanged(tokenId, address(0));
        _changed(tokenId);
    }

    /// @dev The account that may change the record beside the owner, or zero.
    function _manager(uint256 tokenId) internal view returns (address) {
        return _managers[tokenId][_slots[tokenId].epoch];
    }

    /// @dev Everything about a registered name.
    function _resolved(uint256 tokenId, address owner) internal view returns (Resolved memory) {
        Slots storage slots = _slots[tokenId];
        return Resolved({
            owner: owner,
            manager: _manager(tokenId),
            networkingKey: slots.networkingKey,
            hostKind: slots.hostKind,
            host: _host(slots),
            port: slots.port,
            schemes: slots.flags & 3,
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

    function _setEndpoint(Slots storage slots, uint8 hostKind, bytes20 hostStart, uint16 port, uint8 flags) private {
        slots.hostKind = hostKind;
        slots.hostStart = hostStart;
        slots.port = port;
        slots.flags = flags;
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
        if (slots.hostKind == Hosts.INDIRECT) return "";
        uint256 length = (slots.flags >> 2) + 1;
        host = abi.encodePacked(slots.hostStart, slots.hostMiddle, bytes12(slots.hostEnd));
        assembly ("memory-safe") {
            mstore(host, length)
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
