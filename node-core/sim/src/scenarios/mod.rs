//! What nodes do together, whatever the world they are in. Each scenario gets a world in which nobody is.

mod end;
mod harm;
mod identity;
mod reach;
mod streams;
mod talk;

use crate::{
    names::name,
    world::{Ask, ByteStream, ECHO, NodeId, Outcome, PATIENCE, Place, Plan, Wire, World},
};
use bytes::Bytes;
use node_core::{
    Name,
    node::{Failure, PeerState, Route},
    session::Request,
    wire::frame::Response,
};

/// The tables of all scenarios: `scenarios!(world)` makes a test of each, in what the expression `world` gives;
/// `harmed_scenarios!(world)` does so for those that need somebody on the way.
///
/// A scenario that is missing here is never called, which the compiler tells.
macro_rules! table {
    ($d:tt $tests:ident in $world:ident; $($module:ident: $($scenario:ident)+;)+) => {
        $($(
            #[doc = concat!("`", stringify!($scenario), "`, as its name says.")]
            pub fn $scenario(world: &mut impl $world) {
                $module::$scenario(world);
            }
        )+)+

        /// A test of every scenario of the table, in the world that the expression gives.
        #[macro_export]
        macro_rules! $tests {
            ($d world:expr) => {
                $($(
                    #[test]
                    fn $scenario() {
                        $crate::scenarios::$scenario(&mut $d world);
                    }
                )+)+
            };
        }
    };
}

table! { $ scenarios in World;
    talk:
        a_request_between_two_direct_nodes_is_answered
        a_request_between_two_indirect_nodes_travels_through_a_router
        long_requests_and_answers_arrive_whole
        a_payload_above_the_limit_is_refused_before_it_leaves
        a_deadline_that_passes_is_a_timeout
        messages_arrive_in_order_and_are_confirmed
        a_message_that_nobody_takes_is_not_delivered
        a_round_trip_is_measured
        a_name_is_resolved_with_how_it_is_known;
    streams:
        a_stream_carries_megabytes_each_way_and_ends
        a_stream_that_is_dropped_unfinished_does_not_look_finished
        a_slow_reader_does_not_grow_its_router_while_another_circuit_runs_at_full_speed;
    reach:
        an_indirect_node_with_three_routers_of_which_two_are_dead_is_online_and_reachable
        a_direct_node_and_an_indirect_one_reach_each_other
        a_peer_that_nobody_answers_for_is_offline_with_the_reason
        two_nodes_that_dial_each_other_at_once_keep_one_session
        a_router_that_restarts_is_reconnected
        a_node_that_restarts_is_reached_again
        a_guest_calls_where_guests_are_served_and_nowhere_else
        a_guest_reaches_an_indirect_node_that_serves_guests
        everybody_behind_one_router_talks_with_everybody_at_once;
    identity:
        names_on_the_chain_find_each_other
        a_key_that_one_of_three_endpoints_makes_up_is_outvoted_and_the_liar_asked_last
        an_endpoint_that_is_slow_is_passed_over
        an_endpoint_that_never_answers_is_passed_over
        an_unregistered_name_is_unknown
        a_node_does_not_talk_to_itself
        a_name_outside_the_allow_list_is_refused
        a_caller_whose_key_is_not_the_registered_one_is_refused
        a_caller_whose_key_is_not_the_pinned_one_is_refused
        whoever_answers_at_the_address_with_another_key_is_not_talked_to
        whoever_answers_under_another_name_is_not_talked_to
        a_rotated_key_ends_what_the_old_one_made
        a_session_that_waits_ends_when_its_peers_key_is_rotated_and_nobody_gets_what_was_under_way
        a_rotation_that_a_reorganisation_undoes_lets_the_old_key_in_again_and_ends_what_the_new_one_made
        a_caller_with_a_freshly_rotated_key_is_let_in_after_one_more_read
        with_every_endpoint_down_pinned_names_still_talk_and_others_say_why_not;
    end:
        closing_fails_what_waits_and_whatever_comes_later
        a_peer_is_told_that_a_node_closes;
}

table! { $ harmed_scenarios in Wire;
    harm:
        a_stream_between_direct_nodes_goes_on_where_it_was_when_its_socket_is_cut
        a_stream_through_a_router_goes_on_where_it_was_when_all_its_sockets_are_cut
        a_stream_between_direct_nodes_goes_on_where_it_was_when_its_socket_ends_for_its_dialler_only
        a_stream_between_direct_nodes_goes_on_where_it_was_when_its_socket_ends_for_who_was_dialled_only
        a_stream_through_a_router_goes_on_where_it_was_when_all_its_sockets_end_for_it_only
        a_stream_between_direct_nodes_goes_on_where_it_was_when_its_socket_takes_nothing_any_more
        a_router_whose_sockets_take_nothing_any_more_is_left_in_the_middle_of_a_stream
        an_altered_byte_ends_a_socket_between_direct_nodes_and_nothing_else
        an_altered_byte_ends_a_socket_to_a_router_and_nothing_else
        what_is_swallowed_on_its_way_back_between_direct_nodes_is_told_again
        what_a_router_says_and_is_swallowed_on_its_way_is_told_again
        a_router_that_hears_nothing_any_more_is_noticed_by_those_who_wait_for_an_answer
        a_router_that_freezes_is_left_and_whatever_is_under_way_is_answered_once
        a_node_whose_address_changes_goes_on_with_its_sessions_and_leaves_others_theirs
        a_router_that_answers_and_forwards_nothing_is_left_for_the_other_one
        a_peer_that_is_gone_without_a_word_is_missed_although_nobody_wants_anything_of_it;
}

/// Registers alice and bob at addresses of their own and starts both.
fn two_direct(world: &mut impl World) -> [NodeId; 2] {
    world.register(&["alice", "bob"], Place::Direct);
    ["alice", "bob"].map(|label| world.start(Plan::named(label)))
}

/// Alice and bob behind the routers rho and sigma; returned in this order.
fn two_routed(world: &mut impl World) -> [NodeId; 4] {
    world.register(&["rho", "sigma"], Place::Direct);
    let routers = Place::Behind(&["rho", "sigma"]);
    world.register(&["alice", "bob"], routers);
    let [rho, sigma] = ["rho", "sigma"].map(|label| world.start(Plan::router(label)));
    let [alice, bob] = ["alice", "bob"].map(|label| start_reachable(world, Plan::named(label)));
    [alice, bob, rho, sigma]
}

/// Starts a node and waits until others can reach it.
fn start_reachable(world: &mut impl World, plan: Plan) -> NodeId {
    let node = world.start(plan);
    until(world, "the node is reachable", |world| {
        world.is_reachable(node)
    });
    node
}

/// Waits until `condition` holds.
fn until<W: World>(world: &mut W, what: &str, mut condition: impl FnMut(&W) -> bool) {
    let held = world.wait(PATIENCE, |world| condition(world));
    assert!(held, "not so after {PATIENCE:?}: {what}");
}

/// The answer to a request that is its own answer.
fn echo(
    world: &mut impl World,
    from: NodeId,
    to: &str,
    payload: &[u8],
) -> Result<Response, Failure> {
    request(world, from, &name(to), payload)
}

fn request(
    world: &mut impl World,
    from: NodeId,
    to: &Name,
    payload: &[u8],
) -> Result<Response, Failure> {
    let request = Request::new(ECHO, Bytes::copy_from_slice(payload));
    let token = world.ask(from, to, Ask::Request(request, None));
    match world.outcome(from, token) {
        Outcome::Answered(response) => Ok(response),
        Outcome::Failed(failure) => Err(failure),
        _ => panic!("a request ends with an answer or fails"),
    }
}

/// What [`echo`] comes to when all is well.
fn ok(payload: &[u8]) -> Result<Response, Failure> {
    Ok(Response::Success(Some(Bytes::copy_from_slice(payload))))
}

/// Opens a stream and takes it at the other end.
fn open<W: World>(world: &mut W, from: NodeId, to: &str, reader: NodeId) -> [W::Stream; 2] {
    let metadata = Bytes::from_static(b"what it is");
    let token = world.ask(from, &name(to), Ask::Stream(metadata.clone()));
    let mut accepted = None;
    let came = world.wait(PATIENCE, |world| {
        accepted = world.accept(reader);
        accepted.is_some()
    });
    assert!(came, "no stream came in at {to}");
    let accepted = accepted.unwrap_or_else(|| panic!("just seen"));
    assert_eq!(accepted.metadata, metadata);
    match world.outcome(from, token) {
        Outcome::Opened(stream) => [stream, accepted.stream],
        Outcome::Failed(failure) => panic!("the stream to {to} does not open: {failure}"),
        _ => panic!("a stream opens or fails"),
    }
}

/// Over which route a peer is connected, if it is.
fn route(world: &impl World, node: NodeId, peer: &str) -> Option<Route> {
    let wanted = name(peer);
    let mut peers = world.peers(node).into_iter();
    let found = peers.find(|peer| peer.name == wanted)?;
    match found.state {
        PeerState::Online { route, .. } => Some(route),
        _ => None,
    }
}

/// Bytes of which no two stretches look alike.
fn pattern(length: usize) -> Bytes {
    (0..length).map(|at| (at ^ (at >> 7)) as u8).collect()
}

/// Bytes on their way from one end of a stream to the other.
struct Flow {
    left: Bytes,
    piece: Bytes,
    finished: bool,
    got: Vec<u8>,
    ended: bool,
}

impl Flow {
    fn of(data: Bytes) -> Self {
        Self {
            left: data,
            piece: Bytes::new(),
            finished: false,
            got: Vec::new(),
            ended: false,
        }
    }

    /// Writes what fits and reads what is there; whether everything has come and the end was seen.
    fn go_on(&mut self, writer: &mut impl ByteStream, reader: &mut impl ByteStream) -> bool {
        while !self.finished {
            if self.piece.is_empty() {
                self.piece = self.left.split_to(self.left.len().min(64 << 10));
            }
            if self.piece.is_empty() {
                writer.finish();
                self.finished = true;
            } else if succeeds(writer.write(&mut self.piece)).is_none() {
                break;
            }
        }
        while !self.ended
            && let Some(chunk) = succeeds(reader.read())
        {
            match chunk {
                Some(bytes) => self.got.extend_from_slice(&bytes),
                None => self.ended = true,
            }
        }
        self.ended
    }
}

/// What came of it, if something did; no error may.
fn succeeds<T>(poll: std::task::Poll<Result<T, node_core::session::StreamError>>) -> Option<T> {
    match poll {
        std::task::Poll::Ready(Ok(value)) => Some(value),
        std::task::Poll::Ready(Err(error)) => panic!("the stream failed: {error}"),
        std::task::Poll::Pending => None,
    }
}
