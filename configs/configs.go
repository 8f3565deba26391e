// Package configs holds example config repositories, one folder for each
// scenario. Each is complete but for keys, and is what its README says.
//
// They are read by tests, and minimal is what xnodeos init begins with. Nothing
// here is a secret or names a real machine.
package configs

import "embed"

// Files are the folders, each at its own name.
//
//go:embed all:minimal
var Files embed.FS
