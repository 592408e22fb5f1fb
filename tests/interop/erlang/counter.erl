%% A gen_server with every kind of answer.
-module(counter).
-behaviour(gen_server).
-export([start/1, start_link/1, init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

start(N) -> gen_server:start({local, ?MODULE}, ?MODULE, N, []).
start_link(N) -> gen_server:start_link(?MODULE, N, []).

init(N) -> {ok, N}.

handle_call(inc, _From, N) -> {reply, N + 1, N + 1};
handle_call(who, {Pid, _Tag}, N) -> {reply, Pid, N};
handle_call({later, Ms}, From, N) ->
    spawn(fun() -> timer:sleep(Ms), gen_server:reply(From, {late, N}) end),
    {noreply, N};
handle_call(never, _From, N) -> {noreply, N};
handle_call({crash, Reason}, _From, _N) -> exit(Reason);
handle_call({stop, Reply}, _From, N) -> {stop, normal, Reply, N}.

handle_cast({tell, Pid, What}, N) -> Pid ! {told, What, N}, {noreply, N}.

handle_info({'$info', Pid}, N) -> Pid ! {info, N}, {noreply, N}.

terminate(_Reason, _N) -> ok.
