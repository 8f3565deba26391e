// Package agent is the domain of the agent: what a node knows about its
// generations, when it tries one, when it keeps it and when it goes back.
//
// Everything here is a decision over values: Rules.Step answers an event with
// the next State and the Effects to carry out, Rules.Recover does the same for
// a process or a machine that has just started. Nothing here runs a program,
// opens a connection, reads a file or asks a clock of its own; the applier
// (package apply) journals the State before it carries out the Effects.
//
// Always holds: a system that was not proven by probes is never the default
// boot entry and never last-good; a quarantined system is never tried; every
// transaction ends in SETTLED, IDLE, HELD or SAFE within the bounds of Limits.
package agent
