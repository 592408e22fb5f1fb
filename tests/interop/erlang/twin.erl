%% What the Python twins of test_twins.py are, written for OTP.
-module(twin).
-behaviour(gen_server).
-export([start/1, start_sup/2, start_child/1, obey/1, init/1, handle_call/3, handle_cast/2, handle_info/2]).

start(N) -> gen_server:start({local, ?MODULE}, ?MODULE, N, []).

init({sup, Auto, Specs}) ->
    {ok, {#{auto_shutdown => Auto},
          [#{id => Id, start => {?MODULE, start_child, [Id]}, restart => Restart, significant => Significant}
           || {Id, Restart, Significant} <- Specs]}};
init(N) -> {ok, N}.

start_sup(Auto, Specs) -> supervisor:start_link(?MODULE, {sup, Auto, Specs}).

%% A child that ends as it is told.
start_child(Id) ->
    {ok, spawn_link(fun() -> register(Id, self()), receive {exit, Reason} -> exit(Reason) end end)}.

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
