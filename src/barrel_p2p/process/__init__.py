"""Processes, mailboxes, links, monitors, gen_server, supervisor, timers: one node, no network."""
