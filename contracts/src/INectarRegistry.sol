// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @notice How the node that stands under a name is reached and recognised.
/// @param networkingKey Ed25519 key that signs the node's handshakes; never zero.
/// @param hostKind 0 = indirect (reached through routers), 1 = IPv4, 2 = IPv6, 3 = DNS name.
/// @param host Nothing, 4 bytes, 16 bytes, or a lower-case DNS name of 1 to 64 bytes, by `hostKind`.
/// @param port TCP port of a direct node; zero for an indirect one.
/// @param schemes Bit 0 = ws, bit 1 = wss; at least one for a direct node, zero for an indirect one.
/// @param routers Indices of enlisted routers, at most eight, each once, in order of preference; none for a direct node.
struct Record {
    bytes32 networkingKey;
    uint8 hostKind;
    bytes host;
    uint16 port;
    uint8 schemes;
    uint32[] routers;
}

/// @notice A name as a node needs it.
/// @param owner Holder of the name.
/// @param manager Account that may change the record, or zero.
/// @param networkingKey As in {Record}; zero since a transfer, until the new owner sets a record.
/// @param hostKind As in {Record}.
/// @param host As in {Record}.
/// @param port As in {Record}.
/// @param schemes As in {Record}.
/// @param routers Labels of the routers, in the record's order.
/// @param version 1 at registration, +1 at every change.
/// @param epoch 1 at registration, +1 at every transfer: another epoch is another owner.
struct Resolved {
    address owner;
    address manager;
    bytes32 networkingKey;
    uint8 hostKind;
    bytes host;
    uint16 port;
    uint8 schemes;
    string[] routers;
    uint32 version;
    uint32 epoch;
}

/// @title The registry of nectar names
/// @notice Names are ERC-721 tokens; `tokenId` is always `uint256(keccak256(bytes(label)))`. A name belongs to its owner
/// for ever: there is no expiry, no administrator, no upgrade and no pause.
interface INectarRegistry {
    /// @notice Somebody committed to a registration.
    event Committed(bytes32 indexed commitment, uint64 timestamp);
    /// @notice A name came into being.
    event NameRegistered(uint256 indexed tokenId, address indexed owner, string label);
    /// @notice The record of a name is another one: it was registered, set, given another key or manager, or
    /// transferred (which clears it).
    event RecordChanged(uint256 indexed tokenId, uint32 version, uint32 epoch);
    /// @notice A name has another manager, or none (zero).
    event ManagerChanged(uint256 indexed tokenId, address indexed manager);
    /// @notice A name can be listed as a router, under `index`.
    event RouterEnlisted(uint256 indexed tokenId, uint32 index);

    /// @notice The constructor's ages leave no time to reveal.
    error CommitmentAgesInvalid(uint64 minAge, uint64 maxAge);
    /// @notice A fee was asked for and nobody to pay it to.
    error TreasuryMissing(uint256 fee);
    /// @notice The label breaks a rule, see {labelError}.
    error LabelInvalid(string label, uint8 rule);
    /// @notice The name is registered already.
    error NameTaken(uint256 tokenId);
    /// @notice The name is not registered.
    error NameUnknown(uint256 tokenId);
    /// @notice The commitment can be revealed until `until` and cannot be renewed before that has passed.
    error CommitmentLive(bytes32 commitment, uint256 until);
    /// @notice Nobody committed to exactly this.
    error CommitmentUnknown(bytes32 commitment);
    /// @notice The commitment can be revealed from `from` on.
    error CommitmentTooNew(bytes32 commitment, uint256 from);
    /// @notice The commitment could be revealed until `until`.
    error CommitmentTooOld(bytes32 commitment, uint256 until);
    /// @notice The payment is not exactly the fee.
    error FeeMismatch(uint256 expected, uint256 sent);
    /// @notice The treasury refused the fee.
    error FeeRefused(address treasury, uint256 fee);
    /// @notice The account is neither owner nor manager (or not the owner, where only the owner will do).
    error NotAuthorized(uint256 tokenId, address account);
    /// @notice The name is enlisted already.
    error AlreadyEnlisted(uint256 tokenId, uint32 index);
    /// @notice A record needs a networking key.
    error NetworkingKeyZero(uint256 tokenId);
    /// @notice The host does not have the form of its kind, or the kind does not exist.
    error HostInvalid(uint8 hostKind, bytes host);
    /// @notice A direct record needs a port and ws, wss or both.
    error EndpointInvalid(uint16 port, uint8 schemes);
    /// @notice An indirect record has no host, port or schemes.
    error IndirectWithAddress(bytes host, uint16 port, uint8 schemes);
    /// @notice A direct record has no routers.
    error DirectWithRouters(uint256 count);
    /// @notice More routers than a record holds.
    error TooManyRouters(uint256 count, uint256 max);
    /// @notice No router was enlisted under this index.
    error RouterUnknown(uint32 index);
    /// @notice The router stands twice in the record.
    error RouterDuplicate(uint32 index);
    /// @notice The signature was good until `deadline`.
    error SignatureExpired(uint256 deadline);
    /// @notice The signature is not `signer`'s for this change at the name's present nonce and epoch.
    error SignatureInvalid(address signer);

    /// @notice 1: what tells this contract from one that is no registry.
    function registryVersion() external view returns (uint32);

    /// @notice Seconds from a commitment to the earliest reveal.
    function minCommitmentAge() external view returns (uint64);

    /// @notice Seconds from a commitment to the last reveal.
    function maxCommitmentAge() external view returns (uint64);

    /// @notice Price of a registration, in wei.
    function fee() external view returns (uint256);

    /// @notice Where the fee goes.
    function treasury() external view returns (address payable);

    /// @notice What to {commit} to before registering.
    /// @param label Label to register.
    /// @param owner Who will own the name.
    /// @param record Its first record.
    /// @param salt 32 random bytes, without which the label could be guessed from the commitment.
    /// @return `keccak256(abi.encode(chainid, this, label, owner, keccak256(abi.encode(record)), salt))`.
    function makeCommitment(string calldata label, address owner, Record calldata record, bytes32 salt)
        external
        view
        returns (bytes32);

    /// @notice Starts a registration. A live commitment cannot be renewed: whoever copies one from the mempool would
    /// otherwise reset its age for ever. A copy that lands first serves its maker, since it names the owner.
    /// @param commitment From {makeCommitment}.
    function commit(bytes32 commitment) external;

    /// @notice When a commitment was made, or zero. Zero again once revealed.
    function commitments(bytes32 commitment) external view returns (uint64 timestamp);

    /// @notice Reveals a commitment: the name is minted to the committed owner, whoever sends this. Takes exactly the
    /// fee. The owner is not called back, so a contract owner must know how to handle its token.
    /// @param label As committed to.
    /// @param owner As committed to.
    /// @param record As committed to.
    /// @param salt As committed to.
    /// @return tokenId `uint256(keccak256(bytes(label)))`.
    function register(string calldata label, address owner, Record calldata record, bytes32 salt)
        external
        payable
        returns (uint256 tokenId);

    /// @notice Whether the label obeys the rules and is not registered.
    function available(string calldata label) external view returns (bool);

    /// @notice The first rule that a label breaks: 0 = none, 1 = too short (3 bytes), 2 = too long (63 bytes), 3 = a
    /// character other than `a-z 0-9 -`, 4 = leading or trailing hyphen, 5 = doubled hyphen.
    function labelError(string calldata label) external view returns (uint8);

    /// @notice The label of a registered name.
    function labelOf(uint256 tokenId) external view returns (string memory);

    /// @notice Everything about a name, or the error {NameUnknown}.
    function resolve(string calldata label) external view returns (Resolved memory);

    /// @notice Replaces the record. For owner and manager; an ERC-721 approval is not enough.
    function setRecord(uint256 tokenId, Record calldata record) external;

    /// @notice Replaces the networking key and nothing else. For owner and manager.
    function rotateKey(uint256 tokenId, bytes32 key) external;

    /// @notice Appoints the one account, or none (zero), that may change the record beside the owner. For the owner
    /// only. A manager can neither transfer nor appoint, and a transfer dismisses it.
    function setManager(uint256 tokenId, address manager) external;

    /// @notice Gives a name the index under which records list it as a router, once and for ever: it stays with the
    /// name when that is transferred. For owner and manager.
    /// @return index From 1, without gaps.
    function enlist(uint256 tokenId) external returns (uint32 index);

    /// @notice The name that was enlisted under an index, or zero.
    function enlistedAt(uint32 index) external view returns (uint256 tokenId);

    /// @notice The index of a name, or zero if it was never enlisted.
    function indexOf(uint256 tokenId) external view returns (uint32);

    /// @notice How many names are enlisted, and the highest index.
    function routerCount() external view returns (uint32);

    /// @notice What the next signature for a name must carry. It is the record's version, so that every change, signed
    /// or not, ends the signatures that were made before it: one that was held back cannot undo a later change.
    function nonces(uint256 tokenId) external view returns (uint256);

    /// @notice {setRecord} on behalf of `signer`, who must be owner or manager. EIP-712, EOA or ERC-1271:
    /// `SetRecord(uint256 tokenId,Record record,uint32 epoch,uint256 nonce,uint256 deadline)`.
    /// @param deadline Last second at which the signature counts.
    function setRecordFor(
        uint256 tokenId,
        Record calldata record,
        uint256 deadline,
        address signer,
        bytes calldata signature
    ) external;

    /// @notice {rotateKey} on behalf of `signer`, who must be owner or manager. EIP-712, EOA or ERC-1271:
    /// `RotateKey(uint256 tokenId,bytes32 networkingKey,uint32 epoch,uint256 nonce,uint256 deadline)`.
    /// @param deadline Last second at which the signature counts.
    function rotateFor(uint256 tokenId, bytes32 key, uint256 deadline, address signer, bytes calldata signature)
        external;
}
