// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ERC721} from "@openzeppelin/contracts/token/ERC721/ERC721.sol";
import {Base64} from "@openzeppelin/contracts/utils/Base64.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {INectarRegistry, Record, Resolved} from "./INectarRegistry.sol";
import {Labels} from "./Labels.sol";
import {RecordStore} from "./RecordStore.sol";

/// @title NectarRegistry
/// @notice Names of nectar nodes: who owns each, and how its node is reached and recognised. See {INectarRegistry} for
/// what each function does and {RecordStore} for where things lie.
contract NectarRegistry is RecordStore, ERC721, EIP712 {
    bytes32 private constant RECORD_TYPEHASH =
        keccak256("Record(bytes32 networkingKey,uint8 hostKind,bytes host,uint16 port,uint8 schemes,uint32[] routers)");
    bytes32 private constant SET_RECORD_TYPEHASH = keccak256(
        "SetRecord(uint256 tokenId,Record record,uint32 epoch,uint256 nonce,uint256 deadline)"
        "Record(bytes32 networkingKey,uint8 hostKind,bytes host,uint16 port,uint8 schemes,uint32[] routers)"
    );
    bytes32 private constant ROTATE_KEY_TYPEHASH =
        keccak256("RotateKey(uint256 tokenId,bytes32 networkingKey,uint32 epoch,uint256 nonce,uint256 deadline)");

    /// @inheritdoc INectarRegistry
    uint32 public constant registryVersion = 1;
    /// @inheritdoc INectarRegistry
    uint64 public immutable minCommitmentAge;
    /// @inheritdoc INectarRegistry
    uint64 public immutable maxCommitmentAge;
    /// @inheritdoc INectarRegistry
    uint256 public immutable fee;
    /// @inheritdoc INectarRegistry
    address payable public immutable treasury;

    /// @inheritdoc INectarRegistry
    mapping(bytes32 commitment => uint64 timestamp) public commitments;

    /// @notice Fixes for ever what a registration takes.
    /// @param minAge Seconds that a commitment must rest. At 0 a registration can be front-run: private chains only.
    /// @param maxAge Seconds after which a commitment has lapsed; more than `minAge`.
    /// @param price Wei per registration; may be 0.
    /// @param payee Where the price goes. If it refuses payments, nobody can register.
    constructor(uint64 minAge, uint64 maxAge, uint256 price, address payable payee)
        ERC721("Nectar Names", "NECTAR")
        EIP712("Nectar Registry", "1")
    {
        if (minAge >= maxAge) revert CommitmentAgesInvalid(minAge, maxAge);
        if (price != 0 && payee == address(0)) revert TreasuryMissing(price);
        minCommitmentAge = minAge;
        maxCommitmentAge = maxAge;
        fee = price;
        treasury = payee;
    }

    // Registration

    /// @inheritdoc INectarRegistry
    function commit(bytes32 commitment) external {
        uint256 made = commitments[commitment];
        if (made != 0 && block.timestamp <= made + maxCommitmentAge) {
            revert CommitmentLive(commitment, made + maxCommitmentAge);
        }
        commitments[commitment] = uint64(block.timestamp);
        emit Committed(commitment, uint64(block.timestamp));
    }

    /// @inheritdoc INectarRegistry
    function register(string calldata label, address owner, Record calldata record, bytes32 salt)
        external
        payable
        returns (uint256 tokenId)
    {
        uint8 rule = Labels.check(bytes(label));
        if (rule != Labels.OK) revert LabelInvalid(label, rule);
        tokenId = _tokenId(label);
        if (_ownerOf(tokenId) != address(0)) revert NameTaken(tokenId);
        if (msg.value != fee) revert FeeMismatch(fee, msg.value);
        _consume(makeCommitment(label, owner, record, salt));

        _labels[tokenId] = label;
        _slots[tokenId].epoch = 1;
        // Not _safeMint: its callback would let a receiver act, or refuse, in the middle of somebody's reveal.
        _mint(owner, tokenId);
        emit NameRegistered(tokenId, owner, label);
        _setRecord(tokenId, record);

        // Last, when everything is in place: the treasury may call back.
        if (fee != 0) {
            (bool paid,) = treasury.call{value: fee}("");
            if (!paid) revert FeeRefused(treasury, fee);
        }
    }

    // The record

    /// @inheritdoc INectarRegistry
    function setRecord(uint256 tokenId, Record calldata record) external {
        _requireEditor(tokenId, msg.sender);
        _setRecord(tokenId, record);
    }

    /// @inheritdoc INectarRegistry
    function rotateKey(uint256 tokenId, bytes32 key) external {
        _requireEditor(tokenId, msg.sender);
        _setKey(tokenId, key);
    }

    /// @inheritdoc INectarRegistry
    function setManager(uint256 tokenId, address manager) external {
        if (msg.sender != _requireRegistered(tokenId)) revert NotAuthorized(tokenId, msg.sender);
        _setManager(tokenId, manager);
    }

    /// @inheritdoc INectarRegistry
    function enlist(uint256 tokenId) external returns (uint32 index) {
        _requireEditor(tokenId, msg.sender);
        if (indexOf[tokenId] != 0) revert AlreadyEnlisted(tokenId, indexOf[tokenId]);
        index = routerCount + 1;
        routerCount = index;
        indexOf[tokenId] = index;
        enlistedAt[index] = tokenId;
        emit RouterEnlisted(tokenId, index);
    }

    // The record, paid for by somebody else

    /// @inheritdoc INectarRegistry
    function setRecordFor(
        uint256 tokenId,
        Record calldata record,
        uint256 deadline,
        address signer,
        bytes calldata signature
    ) external {
        bytes32 change = keccak256(
            abi.encode(
                SET_RECORD_TYPEHASH,
                tokenId,
                _hashRecord(record),
                _slots[tokenId].epoch,
                _slots[tokenId].version,
                deadline
            )
        );
        _requireSigned(tokenId, change, deadline, signer, signature);
        _setRecord(tokenId, record);
    }

    /// @inheritdoc INectarRegistry
    function rotateFor(uint256 tokenId, bytes32 key, uint256 deadline, address signer, bytes calldata signature)
        external
    {
        bytes32 change = keccak256(
            abi.encode(ROTATE_KEY_TYPEHASH, tokenId, key, _slots[tokenId].epoch, _slots[tokenId].version, deadline)
        );
        _requireSigned(tokenId, change, deadline, signer, signature);
        _setKey(tokenId, key);
    }

    // Views

    /// @inheritdoc INectarRegistry
    function makeCommitment(string calldata label, address owner, Record calldata record, bytes32 salt)
        public
        view
        returns (bytes32)
    {
        return keccak256(abi.encode(block.chainid, address(this), label, owner, keccak256(abi.encode(record)), salt));
    }

    /// @inheritdoc INectarRegistry
    function resolve(string calldata label) external view returns (Resolved memory) {
        uint256 tokenId = _tokenId(label);
        return _resolved(tokenId, _requireRegistered(tokenId));
    }

    /// @inheritdoc INectarRegistry
    function available(string calldata label) external view returns (bool) {
        return Labels.check(bytes(label)) == Labels.OK && _ownerOf(_tokenId(label)) == address(0);
    }

    /// @inheritdoc INectarRegistry
    function labelError(string calldata label) external pure returns (uint8) {
        return Labels.check(bytes(label));
    }

    /// @inheritdoc INectarRegistry
    function labelOf(uint256 tokenId) public view returns (string memory) {
        _requireRegistered(tokenId);
        return _labels[tokenId];
    }

    /// @inheritdoc INectarRegistry
    function nonces(uint256 tokenId) external view returns (uint256) {
        return _slots[tokenId].version;
    }

    /// @notice ERC-721 metadata as a data URI. A label needs no escaping: it holds neither quotes nor backslashes.
    /// @param tokenId The name's hash.
    function tokenURI(uint256 tokenId) public view override returns (string memory) {
        bytes memory json =
            abi.encodePacked('{"name":"', labelOf(tokenId), '","description":"The name of a nectar node."}');
        return string.concat("data:application/json;base64,", Base64.encode(json));
    }

    // Rights and rules

    /// @dev Every way to move a name comes through here, before any callback of a receiver: whoever is called back
    /// finds the seller's key and manager gone.
    function _update(address to, uint256 tokenId, address auth) internal override returns (address from) {
        from = super._update(to, tokenId, auth);
        if (from != address(0)) _clear(tokenId);
    }

    function _consume(bytes32 commitment) private {
        uint256 made = commitments[commitment];
        if (made == 0) revert CommitmentUnknown(commitment);
        if (block.timestamp < made + minCommitmentAge) revert CommitmentTooNew(commitment, made + minCommitmentAge);
        if (block.timestamp > made + maxCommitmentAge) revert CommitmentTooOld(commitment, made + maxCommitmentAge);
        delete commitments[commitment];
    }

    function _requireRegistered(uint256 tokenId) private view returns (address owner) {
        owner = _ownerOf(tokenId);
        if (owner == address(0)) revert NameUnknown(tokenId);
    }

    /// @dev Deliberately without ERC-721 approvals: a market that may move a name must not be able to redirect it.
    function _requireEditor(uint256 tokenId, address account) private view {
        if (account == _requireRegistered(tokenId)) return;
        // Zero is "no manager", never an account.
        if (account == address(0) || account != _manager(tokenId)) revert NotAuthorized(tokenId, account);
    }

    /// @dev The domain (chain and contract), nonce and epoch in `change` stop replays: elsewhere, again, or after a sale.
    function _requireSigned(uint256 tokenId, bytes32 change, uint256 deadline, address signer, bytes calldata signature)
        private
        view
    {
        if (block.timestamp > deadline) revert SignatureExpired(deadline);
        _requireEditor(tokenId, signer);
        if (!SignatureChecker.isValidSignatureNowCalldata(signer, _hashTypedDataV4(change), signature)) {
            revert SignatureInvalid(signer);
        }
    }

    function _hashRecord(Record calldata record) private pure returns (bytes32) {
        return keccak256(
            abi.encode(
                RECORD_TYPEHASH,
                record.networkingKey,
                record.hostKind,
                keccak256(record.host),
                record.port,
                record.schemes,
                keccak256(abi.encodePacked(record.routers))
            )
        );
    }

    function _tokenId(string calldata label) private pure returns (uint256) {
        return uint256(keccak256(bytes(label)));
    }
}
