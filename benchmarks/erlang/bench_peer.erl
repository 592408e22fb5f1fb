%% One of two stock Erlang nodes under measurement: reads a command a line on stdin, answers with a line.
%%
%%   oneway Pairs MessagesPerPair Bytes Batch -> result MessagesPerSecond   (measured where they arrive; Batch is for Python)
%%   pingpong Rounds Bytes                    -> result P50us P99us
%%   call Callers CallsPerCaller Bytes        -> result CallsPerSecond
%%   setup Rounds                             -> result P50ms
%%   attach                                   -> result 1                   (connected to the hub of a star)
%%   fan Count Bytes                          -> result MessagesPerSecond   (to all peers in turn, until all have said so)
%%
%% benchmarks/ours/peer.py and benchmarks/ours/star.py do the same works in the same way; change both or neither.
-module(bench_peer).
-behaviour(gen_server).
-export([main/0, init/1, handle_call/3, handle_cast/2]).

main() ->
    spawn(fun() ->
        [Peer] = init:get_plain_arguments(),
        register(bench_sink, spawn_link(fun sink/0)),
        register(bench_count, spawn_link(fun count_work/0)),
        {ok, _} = gen_server:start_link({local, bench_server}, ?MODULE, [], []),
        io:format("ready~n"),
        loop(list_to_atom(Peer))
    end).

loop(Peer) ->
    case io:get_line("") of
        Line when is_list(Line) ->
            case string:lexemes(Line, " \n") of
                ["stop"] ->
                    halt();
                [Work | Args] ->
                    try (Work =:= "fan" orelse connected(Peer)) andalso run(Work, [list_to_integer(A) || A <- Args], Peer) of
                        false -> io:format("error no connection to ~p~n", [Peer]);
                        Numbers -> io:format("result~s~n", [[io_lib:format(" ~.3f", [float(N)]) || N <- Numbers]])
                    catch
                        Class:Reason:Stack -> io:format("error ~0p~n", [{Class, Reason, Stack}])
                    end,
                    loop(Peer)
            end;
        _ ->
            halt()
    end.

connected(Peer) -> net_kernel:connect_node(Peer).

run("oneway", [Pairs, Count, Bytes, _Batch], Peer) ->
    _ = oneway(Peer, Pairs, warm_up(Count), Bytes),
    [oneway(Peer, Pairs, Count, Bytes)];
run("pingpong", [Rounds, Bytes], Peer) ->
    _ = pingpong(Peer, warm_up(Rounds), Bytes),
    Times = lists:sort(pingpong(Peer, Rounds, Bytes)),
    [percentile(Times, 0.50) / 1.0e3, percentile(Times, 0.99) / 1.0e3];
run("call", [Callers, Count, Bytes], Peer) ->
    _ = calls(Peer, Callers, warm_up(Count), Bytes),
    [calls(Peer, Callers, Count, Bytes)];
run("setup", [Rounds], Peer) ->
    ok = net_kernel:monitor_nodes(true),
    _ = disconnect(Peer),
    _ = setups(Peer, warm_up(Rounds)),
    Times = lists:sort(setups(Peer, Rounds)),
    ok = net_kernel:monitor_nodes(false),
    [percentile(Times, 0.50) / 1.0e6];
run("attach", [], _Hub) ->
    [1];
run("fan", [Count, Bytes], _None) ->
    _ = fan(nodes(), warm_up(Count), Bytes),
    [fan(nodes(), Count, Bytes)].

warm_up(Count) -> max(2, Count div 10).

percentile(Sorted, P) -> lists:nth(min(length(Sorted), 1 + trunc(P * length(Sorted))), Sorted).

now_ns() -> erlang:monotonic_time(nanosecond).

%% --- one way: the receivers' node has the clock -------------------------------------------------------------------------

oneway(Peer, Pairs, Count, Bytes) ->
    Ref = make_ref(),
    {bench_sink, Peer} ! {receivers, self(), Ref, Pairs, Count},
    Pids = receive {Ref, pids, Ps} -> Ps end,
    Message = {work, binary:copy(<<7>>, Bytes)},
    [spawn_link(fun() -> flood(Pid, Message, Count) end) || Pid <- Pids],
    receive {Ref, elapsed, Ns} -> (Pairs * Count - 1) * 1.0e9 / Ns end.

flood(_Pid, _Message, 0) -> ok;
flood(Pid, Message, Count) -> Pid ! Message, flood(Pid, Message, Count - 1).

sink() ->
    receive
        {receivers, From, Ref, Pairs, Count} ->
            spawn_link(fun() -> collect(From, Ref, Pairs, Count) end);
        {echo, From, Ref} ->
            From ! {Ref, pid, spawn_link(fun echo/0)}
    end,
    sink().

collect(From, Ref, Pairs, Count) ->
    Owner = self(),
    From ! {Ref, pids, [spawn_link(fun() -> receiver(Owner, Count) end) || _ <- lists:seq(1, Pairs)]},
    Spans = [receive {span, First, Last} -> {First, Last} end || _ <- lists:seq(1, Pairs)],
    From ! {Ref, elapsed, lists:max([L || {_, L} <- Spans]) - lists:min([F || {F, _} <- Spans])}.

receiver(Owner, Count) ->
    receive {work, _} -> ok end,
    First = now_ns(),
    count(Count - 1),
    Owner ! {span, First, now_ns()}.

count(0) -> ok;
count(Left) -> receive {work, _} -> count(Left - 1) end.

%% --- round trips --------------------------------------------------------------------------------------------------------

pingpong(Peer, Rounds, Bytes) ->
    Ref = make_ref(),
    {bench_sink, Peer} ! {echo, self(), Ref},
    Echo = receive {Ref, pid, Pid} -> Pid end,
    Times = rounds(Echo, {ping, self(), binary:copy(<<7>>, Bytes)}, Rounds, []),
    Echo ! stop,
    Times.

rounds(_Echo, _Ping, 0, Times) -> Times;
rounds(Echo, Ping, Left, Times) ->
    Start = now_ns(),
    Echo ! Ping,
    receive {pong, _} -> ok end,
    rounds(Echo, Ping, Left - 1, [now_ns() - Start | Times]).

echo() ->
    receive
        {ping, From, Bin} -> From ! {pong, Bin}, echo();
        stop -> ok
    end.

%% --- calls --------------------------------------------------------------------------------------------------------------

calls(Peer, Callers, Count, Bytes) ->
    Request = {work, binary:copy(<<7>>, Bytes)},
    Server = {bench_server, Peer},
    Owner = self(),
    Start = now_ns(),
    Pids = [spawn_link(fun() -> caller(Server, Request, Count), Owner ! {self(), done} end) || _ <- lists:seq(1, Callers)],
    [receive {Pid, done} -> ok end || Pid <- Pids],
    Callers * Count * 1.0e9 / (now_ns() - Start).

caller(_Server, _Request, 0) -> ok;
caller(Server, Request, Left) -> _ = gen_server:call(Server, Request, 60000), caller(Server, Request, Left - 1).

init([]) -> {ok, none}.
handle_call({work, Bin}, _From, State) -> {reply, Bin, State}.
handle_cast(_, State) -> {noreply, State}.

%% --- connection set-up --------------------------------------------------------------------------------------------------

setups(_Peer, 0) -> [];
setups(Peer, Left) ->
    Start = now_ns(),
    true = net_kernel:connect_node(Peer),
    Elapsed = now_ns() - Start,
    receive {nodeup, Peer} -> ok after 5000 -> exit(no_nodeup) end,
    disconnect(Peer),
    [Elapsed | setups(Peer, Left - 1)].

%% The pause lets the other node see the end too; it isn't part of what is measured.
disconnect(Peer) ->
    case erlang:disconnect_node(Peer) of
        true -> receive {nodedown, Peer} -> ok after 5000 -> exit(no_nodedown) end;
        _ -> ok
    end,
    timer:sleep(20).

%% --- a hub and its peers ------------------------------------------------------------------------------------------------

fan(Peers, Count, Bytes) ->
    Start = now_ns(),
    fan(Peers, Peers, Count, {work, binary:copy(<<7>>, Bytes)}),
    [{bench_count, Peer} ! {flush, self()} || Peer <- Peers],
    [receive flushed -> ok end || _ <- Peers],
    Count * 1.0e9 / (now_ns() - Start).

fan(_Peers, _Next, 0, _Message) -> ok;
fan(Peers, [], Left, Message) -> fan(Peers, Peers, Left, Message);
fan(Peers, [Peer | Next], Left, Message) -> {bench_count, Peer} ! Message, fan(Peers, Next, Left - 1, Message).

count_work() ->
    receive
        {work, _} -> ok;
        {flush, From} -> From ! flushed
    end,
    count_work().
