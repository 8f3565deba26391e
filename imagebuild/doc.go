// Package imagebuild takes a NixOS system and writes what a machine boots.
//
// The way is System -> Inputs -> Plan -> Write. Load reads what the build
// needs, NewPlan decides everything without touching the disk (so a plan can
// be printed, compared and tested), Write makes the files. Inspect goes the
// other way: it takes an artifact apart, derives from its parts what the
// writer would write, and compares every byte.
//
// Two builds of the same inputs give the same bytes on any host, in any
// folder, by any user, on any number of cores. Nothing here needs root, a
// loop device or a host tool, and nothing appears under its final name before
// it is whole.
//
// It does not build systems (Nix does) and does not know how they are served
// or booted (packages netboot and netboot/stage1 do).
package imagebuild
