// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Record, Resolved} from "../src/INectarRegistry.sol";
import {Registry, RegistryFixture, RegistryTest} from "./support/RegistryTest.sol";

/// @notice What holds after any sequence of actions by anyone.
contract InvariantsTest is RegistryTest {
    Handler private handler;

    function setUp() public override {
        super.setUp();
        handler = new Handler(registry);
        vm.deal(address(handler), 1000 ether);
    }

    /// @dev Read by forge: call the handler and nothing else.
    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function invariant_the_registry_agrees_with_a_simple_model() public view {
        for (uint256 i; i < handler.LABELS(); ++i) {
            string memory label = handler.labelAt(i);
            Handler.Model memory model = handler.modelOf(i);
            vm.assertEq(registry.available(label), model.owner == address(0), "available");
            if (model.owner == address(0)) continue;
            Resolved memory got = registry.resolve(label);
            vm.assertEq(got.owner, model.owner, "owner");
            vm.assertEq(got.owner, registry.ownerOf(id(label)), "one owner");
            vm.assertEq(got.manager, model.manager, "manager");
            vm.assertEq(got.version, model.version, "version");
            vm.assertEq(got.epoch, model.epoch, "epoch");
            vm.assertEq(registry.nonces(id(label)), model.version, "nonce");
            assertResolves(label, model.record);
        }
    }

    function invariant_a_record_is_direct_or_routed_never_both() public view {
        for (uint256 i; i < handler.LABELS(); ++i) {
            if (handler.modelOf(i).owner == address(0)) continue;
            Resolved memory got = registry.resolve(handler.labelAt(i));
            if (got.hostKind == 0) {
                vm.assertEq(got.host.length + got.port + got.schemes, 0, "indirect");
            } else {
                vm.assertEq(got.routers.length, 0, "direct");
                vm.assertEq(got.port != 0 && got.schemes != 0 && got.networkingKey != 0, true, "complete");
            }
        }
    }

    function invariant_router_indices_have_no_gaps_and_no_doubles() public view {
        uint32 count = registry.routerCount();
        for (uint32 index = 1; index <= count; ++index) {
            vm.assertEq(registry.indexOf(registry.enlistedAt(index)), index, "indexOf(enlistedAt(index))");
        }
        vm.assertEq(registry.enlistedAt(0), 0, "nothing at zero");
        vm.assertEq(registry.enlistedAt(count + 1), 0, "nothing beyond");
    }

    function invariant_the_registry_keeps_no_money_and_the_treasury_gets_all() public view {
        vm.assertEq(address(registry).balance, 0, "registry");
        vm.assertEq(treasury.balance, handler.registered() * FEE, "treasury");
    }

    function invariant_balances_count_the_names() public view {
        uint256 sum;
        for (uint256 i; i < 3; ++i) {
            sum += registry.balanceOf(handler.actorAt(i));
        }
        vm.assertEq(sum, handler.registered(), "names");
    }
}

/// @notice Does what people and thieves do, and keeps the model of what should come of it.
contract Handler is RegistryFixture {
    struct Model {
        address owner;
        address manager;
        uint32 version;
        uint32 epoch;
        Record record;
    }

    uint256 public constant LABELS = 6;

    uint256 public registered;
    mapping(uint256 i => Model) private models;

    constructor(Registry registry_) {
        registry = registry_;
    }

    // Actions

    /// @dev Anyone pays, the committed owner gets the name, if it is free.
    function register(uint256 which, uint256 who, uint256 seed) external {
        which = bound(which, 0, LABELS - 1);
        string memory label = labelAt(which);
        address owner = actorAt(who);
        Record memory record = _record(seed);
        registry.commit(registry.makeCommitment(label, owner, record, bytes32(seed ^ time())));
        uint256 made = time();
        skip(MIN_AGE);
        try registry.register{value: FEE}(label, owner, record, bytes32(seed ^ made)) {
            vm.assertEq(models[which].owner, address(0), "was free");
            Model storage model = models[which];
            (model.owner, model.version, model.epoch, model.record) = (owner, 1, 1, record);
            ++registered;
        } catch {
            vm.assertEq(models[which].owner != address(0), true, "was taken");
        }
    }

    function setRecord(uint256 which, uint256 who, uint256 seed) external {
        which = bound(which, 0, LABELS - 1);
        Record memory record = _record(seed);
        vm.prank(actorAt(who));
        try registry.setRecord(_id(which), record) {
            _editedBy(which, actorAt(who));
            models[which].record = record;
        } catch {
            _notEditorOf(which, actorAt(who));
        }
    }

    function rotateKey(uint256 which, uint256 who, bytes32 key) external {
        which = bound(which, 0, LABELS - 1);
        key = key == 0 ? KEY : key;
        vm.prank(actorAt(who));
        try registry.rotateKey(_id(which), key) {
            _editedBy(which, actorAt(who));
            models[which].record.networkingKey = key;
        } catch {
            _notEditorOf(which, actorAt(who));
        }
    }

    function setManager(uint256 which, uint256 who, uint256 whom) external {
        which = bound(which, 0, LABELS - 1);
        address manager = whom % 4 == 3 ? address(0) : actorAt(whom);
        vm.prank(actorAt(who));
        try registry.setManager(_id(which), manager) {
            vm.assertEq(models[which].owner, actorAt(who), "by the owner");
            models[which].manager = manager;
            ++models[which].version;
        } catch {
            vm.assertEq(models[which].owner != actorAt(who), true, "not by the owner");
        }
    }

    /// @dev By the owner, or by somebody with an approval or without.
    function transfer(uint256 which, uint256 who, uint256 whom, bool approved) external {
        which = bound(which, 0, LABELS - 1);
        Model storage model = models[which];
        if (model.owner == address(0)) return;
        if (approved) {
            vm.prank(model.owner);
            registry.approve(actorAt(who), _id(which));
        }
        bool allowed = registry.getApproved(_id(which)) == actorAt(who) || model.owner == actorAt(who);
        vm.prank(actorAt(who));
        try registry.transferFrom(model.owner, actorAt(whom), _id(which)) {
            vm.assertEq(allowed, true, "by owner or approved");
            (model.owner, model.manager) = (actorAt(whom), address(0));
            ++model.version;
            ++model.epoch;
            Record memory none;
            model.record = none;
        } catch {
            vm.assertEq(allowed, false, "a stranger");
        }
    }

    function enlist(uint256 which, uint256 who) external {
        which = bound(which, 0, LABELS - 1);
        bool before = registry.indexOf(_id(which)) != 0;
        vm.prank(actorAt(who));
        try registry.enlist(_id(which)) returns (uint32 index) {
            vm.assertEq(_isEditor(which, actorAt(who)) && !before, true, "by an editor, once");
            vm.assertEq(index, registry.routerCount(), "the next index");
        } catch {
            vm.assertEq(!_isEditor(which, actorAt(who)) || before, true, "a stranger, or again");
        }
    }

    function rotateFor(uint256 which, uint256 who, bytes calldata signature) external {
        which = bound(which, 0, LABELS - 1);
        try registry.rotateFor(_id(which), KEY, type(uint256).max, actorAt(who), signature) {
            vm.assertEq(false, true, "a made-up signature");
        } catch {}
    }

    function wait(uint256 duration) external {
        skip(bound(duration, 0, 2 * MAX_AGE));
    }

    // Views

    function labelAt(uint256 i) public pure returns (string memory) {
        return string.concat("name-", vm.toString(i));
    }

    function actorAt(uint256 i) public view returns (address) {
        return [alice, bob, eve][i % 3];
    }

    function modelOf(uint256 i) external view returns (Model memory) {
        return models[i];
    }

    function _editedBy(uint256 which, address account) private {
        vm.assertEq(_isEditor(which, account), true, "by an editor");
        ++models[which].version;
    }

    function _notEditorOf(uint256 which, address account) private view {
        vm.assertEq(_isEditor(which, account), false, "not an editor");
    }

    function _isEditor(uint256 which, address account) private view returns (bool) {
        return account == models[which].owner || account == models[which].manager;
    }

    /// @dev A valid record of any kind, with as many of the enlisted routers as there are, up to eight.
    function _record(uint256 seed) private view returns (Record memory record) {
        uint256 kind = seed % 5;
        if (kind == 0) {
            record = ipv4();
        } else if (kind == 1) {
            record = ipv6();
        } else if (kind == 2) {
            record = dns("a.example");
        } else if (kind == 3) {
            record = dns("a-rather-long-label.of-a-name.that-fills-both-slots.example.orgs");
        } else {
            uint256 count = registry.routerCount();
            uint32[] memory routers = new uint32[](count > 8 ? 8 : count);
            for (uint32 i; i < routers.length; ++i) {
                routers[i] = uint32(count) - i;
            }
            record = indirect(routers);
        }
        record.networkingKey = keccak256(abi.encode(seed));
    }

    function _id(uint256 which) private pure returns (uint256) {
        return id(labelAt(which));
    }
}
