package imagebuild

import (
	"fmt"
	"strings"
)

// Text is the plan as a person reads it, one decision a line. It depends on
// the inputs only, so two runs print the same.
func (p *Plan) Text() string {
	var b strings.Builder
	line := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "%-13s %s\n", what, fmt.Sprintf(format, args...))
	}
	line("system", "%s", p.System)
	line("label", "%s, %q (%s, live, hand-over by %s)", p.Label, p.Title, p.Arch, p.Handover)
	line("closure", "%d paths, %d bytes as NARs, %s", p.Closure.Paths, p.Closure.NarSize, p.Closure.Digest)
	line("release", "sequence %d, time %d", p.Sequence, p.Time)
	line("command line", "%s", p.Cmdline)
	line("kernel", "%s, %d bytes, sha256:%s", p.KernelVer, p.Kernel.Size, p.Kernel.SHA256)
	line("first stage", "%d bytes, sha256:%s", p.Init.Size, p.Init.SHA256)
	line("modules", "%d, in the initrd", len(p.Modules))
	if len(p.NodeConfig) == 0 {
		line("node config", "none: nobody can log in unless a volume XNODE-CFG brings keys")
	} else {
		line("node config", "%s", strings.Join(p.NodeConfig, " "))
	}
	for _, l := range p.Loaders {
		line("loader", "%s, %d bytes, sha256:%s", l.Name, l.Size, l.SHA256)
	}
	line("payload", "squashfs, cached as %s", p.PayloadKey)
	line("initrd", "cached as %s", p.InitrdKey)
	for _, name := range p.Outputs {
		line("output", "%s", name)
	}
	return b.String()
}
