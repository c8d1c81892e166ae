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

    /// @notice Longest DNS name, in bytes: what two storage slots hold.
    uint256 internal constant DNS_MAX = 64;

    /// @dev Bit `c` is set for each character that a DNS label may begin or end with: `a-z` and `0-9`.
    uint256 private constant ALPHANUMERIC = ((1 << 26) - 1) << 0x61 | ((1 << 10) - 1) << 0x30;

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

        uint256 labelLength;
        bytes1 first;
        bytes1 previous = ".";
        for (uint256 i; i < length; ++i) {
            bytes1 c = host[i];
            if (c == ".") {
                if (labelLength == 0 || previous == "-") return false;
                labelLength = 0;
            } else {
                if (c == "-") {
                    if (labelLength == 0) return false;
                } else if (ALPHANUMERIC >> uint8(c) & 1 == 0) {
                    return false;
                }
                if (labelLength == 0) first = c;
                if (++labelLength == 64) return false;
            }
            previous = c;
        }
        return labelLength != 0 && previous != "-" && first >= "a";
    }
}
