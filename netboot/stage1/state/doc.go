// Package state is XNODE-STATE, what a live node keeps over a boot: which disk
// a person means, whether what lies there may be touched, how an empty one is
// made, and whose it is.
//
// Everything is made so that a power cut at any moment leaves either what was
// there before, or something that the next boot recognises as begun and makes
// anew: a mark is written first and cleared last. Data that is not ours is never
// written to; "new:" discards an older XNODE-STATE and nothing else.
//
// The package reads a tree like /sys, an open device and a folder; mounting,
// the kernel's view of partitions and the console are the caller's.
package state
