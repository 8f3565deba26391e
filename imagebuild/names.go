package imagebuild

// Names of files as loaders, the first stage and people find them.
const (
	manifestFileName    = "manifest.json"
	manifestKernelName  = "vmlinuz"
	manifestInitrdName  = "initrd"
	manifestPayloadName = "system.squashfs"
	payloadCPIOName     = "payload.cpio"
	bootScriptName      = "boot.ipxe"
	netbootFolder       = "netboot"

	// embeddedFolder is where the first stage looks in its own root.
	embeddedFolder = "xnode/payload"
)

// netbootFiles lists the files of the netboot tree in the order in which they
// are written.
func netbootFiles(embedded bool) []string {
	names := []string{manifestKernelName, manifestInitrdName, bootScriptName, manifestPayloadName, manifestFileName}
	if embedded {
		names = append(names, payloadCPIOName)
	}
	return names
}
