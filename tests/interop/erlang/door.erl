%% A gen_statem: a door with a code, which postpones what it can't answer while it is closed.
-module(door).
-behaviour(gen_statem).
-export([start/0, init/1, callback_mode/0, closed/3, open/3]).

start() -> gen_statem:start({local, ?MODULE}, ?MODULE, 1234, []).

callback_mode() -> state_functions.
init(Code) -> {ok, closed, Code}.

closed({call, From}, {enter, Code}, Code) -> {next_state, open, Code, [{reply, From, ok}]};
closed({call, From}, {enter, _}, Code) -> {keep_state, Code, [{reply, From, {error, wrong}}]};
closed({call, _From}, pass, _Code) -> {keep_state_and_data, [postpone]};
closed(cast, unlock, Code) -> {next_state, open, Code};
closed(info, {ask, Pid}, _Code) -> Pid ! closed, keep_state_and_data.

open({call, From}, pass, Code) -> {next_state, closed, Code, [{reply, From, passed}]};
open({call, From}, {enter, _}, _Code) -> {keep_state_and_data, [{reply, From, already}]};
open(info, {ask, Pid}, _Code) -> Pid ! open, keep_state_and_data.
