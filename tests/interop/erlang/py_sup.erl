%% A supervisor whose children are processes of a Python node.
-module(py_sup).
-behaviour(supervisor).
-export([start_link/2, init/1, spawn_worker/1, start_server/2]).

start_link(Node, Tell) -> supervisor:start_link({local, ?MODULE}, ?MODULE, {Node, Tell}).

init({Node, Tell}) ->
    {ok, {#{strategy => one_for_one, intensity => 5, period => 10},
          [#{id => worker, start => {?MODULE, spawn_worker, [Node]}, shutdown => 2000},
           #{id => server, start => {?MODULE, start_server, [Node, Tell]}, shutdown => 2000}]}}.

%% an exported function of the Python node, as a linked process
spawn_worker(Node) -> {ok, spawn_link(Node, workers, work, [])}.

%% a GenServer, started by an exported function that gives its pid
start_server(Node, Tell) ->
    Pid = erpc:call(Node, workers, start_adder, [Tell]),
    link(Pid),
    {ok, Pid}.
