%% What the Python twins of test_twins.py are, written for OTP.
-module(twin).
-behaviour(gen_server).
-export([start/1, obey/1, init/1, handle_call/3, handle_cast/2, handle_info/2]).

start(N) -> gen_server:start({local, ?MODULE}, ?MODULE, N, []).

init(N) -> {ok, N}.

handle_call({timeout, Ms, Pid}, _From, N) -> put(who, Pid), {reply, N, N, Ms};
handle_call(get, _From, N) -> {reply, N, N}.

handle_cast({set, N}, _) -> {noreply, N}.

handle_info(timeout, N) -> get(who) ! timeout, {noreply, N}.

%% A process that ends as it is told.
obey(How) ->
    receive
        after 10 -> case How of
            return -> ok;
            {exit, R} -> exit(R);
            {throw, R} -> throw(R);
            {error, R} -> error(R)
        end
    end.
