// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title Hosts
/// @notice Whether bytes are a host that a node may be told to dial. Only the form is checked: which addresses may be
/// dialled at all is for the node to say, which also sees what a DNS name resolves to.
library Hosts {
    uint8 internal constant INDIRECT = 0;
    uint8 internal constant IPV4 = 1;
    uint8 internal constant IPV6 = 2;
    uint8 internal constant DNS = 3;

    /// @notice Longest DNS name, in bytes: what a record's slots hold.
    uint256 internal constant DNS_MAX = 64;

    uint256 private constant DOT = 0x2e;
    bytes1 private constant HYPHEN = "-";
    /// @dev Bit `c` is set for each character that a DNS label may hold: `a-z`, `0-9` and the hyphen.
    uint256 private constant ALLOWED = ((1 << 26) - 1) << 0x61 | ((1 << 10) - 1) << 0x30 | 1 << 0x2d;

    /// @notice Whether `host` has the form that `kind` (not indirect) asks for.
    function isValid(uint8 kind, bytes calldata host) internal pure returns (bool) {
        if (kind == IPV4) return host.length == 4;
        if (kind == IPV6) return host.length == 16;
        return kind == DNS && isDnsName(host);
    }

    /// @notice Whether `host` is a lower-case DNS name without a trailing dot: labels of 1 to 63 letters, digits and
    /// hyphens, no hyphen at a label's edge. The last label begins with a letter, as every top-level domain does:
    /// URL parsers read `1.2.3.4` and `0x7f.1` as IPv4 addresses, which must come as such.
    function isDnsName(bytes calldata host) internal pure returns (bool) {
        uint256 length = host.length;
        if (length == 0 || length > DNS_MAX) return false;

        uint256 start;
        for (uint256 i; i < length; ++i) {
            uint256 c;
            // host[i], without the second check that i is within bounds, which would cost as much as the rest of the loop.
            assembly ("memory-safe") {
                c := byte(0, calldataload(add(host.offset, i)))
            }
            if (ALLOWED >> c & 1 != 0) continue;
            if (c != DOT || !isDnsLabel(host[start:i])) return false;
            start = i + 1;
        }
        return isDnsLabel(host[start:]) && host[start] >= "a";
    }

    /// @dev The length and edges of a label whose characters are allowed.
    function isDnsLabel(bytes calldata label) private pure returns (bool) {
        uint256 length = label.length;
        return length != 0 && length < 64 && label[0] != HYPHEN && label[length - 1] != HYPHEN;
    }
}
