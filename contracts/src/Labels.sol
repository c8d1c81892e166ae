// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title Labels
/// @notice What may be registered as a name. Anything that could be mistaken for another name is refused: no upper
/// case, no Unicode, and no doubled hyphen, hence no punycode.
library Labels {
    /// @notice Shortest label, in bytes.
    uint256 internal constant MIN = 3;
    /// @notice Longest label, in bytes.
    uint256 internal constant MAX = 63;

    uint8 internal constant OK = 0;
    uint8 internal constant TOO_SHORT = 1;
    uint8 internal constant TOO_LONG = 2;
    uint8 internal constant BAD_CHARACTER = 3;
    uint8 internal constant HYPHEN_AT_EDGE = 4;
    uint8 internal constant DOUBLED_HYPHEN = 5;

    uint256 private constant HYPHEN = 0x2d;
    /// @dev Bit `c` is set for each allowed character `c`: `a-z`, `0-9` and the hyphen.
    uint256 private constant ALLOWED = ((1 << 26) - 1) << 0x61 | ((1 << 10) - 1) << 0x30 | 1 << HYPHEN;

    /// @notice The first rule that `label` breaks, in the order of the codes above, or `OK`.
    function check(bytes calldata label) internal pure returns (uint8) {
        uint256 length = label.length;
        if (length < MIN) return TOO_SHORT;
        if (length > MAX) return TOO_LONG;

        bool doubled;
        uint256 previous;
        for (uint256 i; i < length; ++i) {
            uint256 c = uint8(label[i]);
            if (ALLOWED >> c & 1 == 0) return BAD_CHARACTER;
            if (c == HYPHEN && previous == HYPHEN) doubled = true;
            previous = c;
        }
        if (uint8(label[0]) == HYPHEN || previous == HYPHEN) return HYPHEN_AT_EDGE;
        return doubled ? DOUBLED_HYPHEN : OK;
    }
}
