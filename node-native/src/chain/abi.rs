//! The registry as the chain sees it.

use alloy::sol;

sol! {
    /// What an owner registers under a name.
    #[derive(Debug, PartialEq, Eq)]
    struct Record {
        bytes32 networkingKey;
        uint8 hostKind;
        bytes host;
        uint16 port;
        uint8 schemes;
        uint32[] routers;
    }

    /// The calls that this crate makes, and every error that they may meet.
    #[derive(Debug)]
    interface Registry {
        function registryVersion() external view returns (uint32);
        function minCommitmentAge() external view returns (uint64);
        function maxCommitmentAge() external view returns (uint64);
        function fee() external view returns (uint256);
        function commit(bytes32 commitment) external;
        function register(string label, address owner, Record record, bytes32 salt) external payable returns (uint256);
        function available(string label) external view returns (bool);
        function setRecord(uint256 tokenId, Record record) external;
        function rotateKey(uint256 tokenId, bytes32 key) external;
        function setManager(uint256 tokenId, address manager) external;
        function enlist(uint256 tokenId) external returns (uint32 index);
        function indexOf(uint256 tokenId) external view returns (uint32);
        function ownerOf(uint256 tokenId) external view returns (address);
        function transferFrom(address from, address to, uint256 tokenId) external;

        error CommitmentAgesInvalid(uint64 minAge, uint64 maxAge);
        error TreasuryMissing(uint256 fee);
        error LabelInvalid(string label, uint8 rule);
        error NameTaken(uint256 tokenId);
        error NameUnknown(uint256 tokenId);
        error CommitmentLive(bytes32 commitment, uint256 until);
        error CommitmentUnknown(bytes32 commitment);
        error CommitmentTooNew(bytes32 commitment, uint256 from);
        error CommitmentTooOld(bytes32 commitment, uint256 until);
        error FeeMismatch(uint256 expected, uint256 sent);
        error FeeRefused(address treasury, uint256 fee);
        error NotAuthorized(uint256 tokenId, address account);
        error AlreadyEnlisted(uint256 tokenId, uint32 index);
        error NetworkingKeyZero(uint256 tokenId);
        error HostInvalid(uint8 hostKind, bytes host);
        error EndpointInvalid(uint16 port, uint8 schemes);
        error IndirectWithAddress(bytes host, uint16 port, uint8 schemes);
        error DirectWithRouters(uint256 count);
        error TooManyRouters(uint256 count, uint256 max);
        error RouterUnknown(uint32 index);
        error RouterDuplicate(uint32 index);
        error ERC721InsufficientApproval(address operator, uint256 tokenId);
        error ERC721IncorrectOwner(address sender, uint256 tokenId, address owner);
        error ERC721InvalidReceiver(address receiver);
        error ERC721NonexistentToken(uint256 tokenId);
    }
}
