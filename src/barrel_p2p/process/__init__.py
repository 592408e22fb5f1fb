"""Processes of one node: mailboxes, links, monitors, servers, supervisors; no network.

current      which process this code runs in
process      the record of one process; gate: how senders wait; steps: how a process is run and interrupted
signals      links, monitors, exit signals; reasons: exit reasons
runtime      the table, names, delivery, spawn, stop; remote: what it asks of the network
api          send, receive, link, ...: what users call; spawning; timers; names: global_ and via
call         calls and their answers; requests: answers for later; multi_call: many servers at once
io           printing to the group leader; sendable: what another node is shown of any value
gen_server   the base class of servers; server_loop: the loop that runs one; system: what OTP's sys asks of it
supervisor   keeps children alive; child: their specification
"""
