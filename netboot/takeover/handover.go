package takeover

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"xnodeos.org/internal/nodeconfig"
)

// xnodeFolder is where a system that is already ours has its node config.
const xnodeFolder = "run/xnode/node"

// collect takes from the old system what the new one keeps: ssh host keys,
// who may log in as root, hostname and machine id. sudoUser, if not empty, is
// the person who runs this: their keys count too. Notes say what is left out.
func collect(root fs.FS, sudoUser string, network []string) (*nodeconfig.Config, []string) {
	files := map[string][]byte{}
	for _, key := range hostKeyFiles(root) {
		addHostKey(root, key, files)
	}
	if keys := joinKeys(authorizedKeys(root, sudoUser)...); len(keys) > 0 {
		files["authorized_keys"] = keys
	}
	if name, err := fs.ReadFile(root, "proc/sys/kernel/hostname"); err == nil && !isLocalhost(string(name)) {
		files["hostname"] = name
	}
	if len(network) > 0 {
		files["network"] = []byte(strings.Join(network, "\n") + "\n")
	}
	// Unknown and broken files become notes: an odd key of the old system must
	// not keep its owner from taking it over.
	c, notes, err := nodeconfig.FromFiles(files)
	if err != nil {
		return &nodeconfig.Config{Files: map[string][]byte{}}, append(notes, err.Error())
	}
	if id, err := fs.ReadFile(root, "etc/machine-id"); err == nil {
		withID := &nodeconfig.Config{Files: map[string][]byte{nodeconfig.MachineID: id}}
		if withID.CheckTakeover() == nil {
			c.Files[nodeconfig.MachineID] = id
		}
	}
	return c, notes
}

func isLocalhost(name string) bool {
	name = strings.TrimSpace(name)
	return name == "" || name == "(none)" || name == "localhost" || strings.HasPrefix(name, "localhost.")
}

// hostKeyFiles lists where sshd has its keys: HostKey lines first, then the
// usual places.
func hostKeyFiles(root fs.FS) []string {
	var list []string
	if config, err := fs.ReadFile(root, "etc/ssh/sshd_config"); err == nil {
		for line := range strings.Lines(string(config)) {
			words := strings.Fields(line)
			if len(words) >= 2 && strings.EqualFold(words[0], "HostKey") {
				list = append(list, strings.TrimPrefix(path.Clean(words[1]), "/"))
			}
		}
	}
	for _, dir := range []string{xnodeFolder, "etc/ssh", "run/xnode/ssh"} {
		for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
			list = append(list, dir+"/ssh_host_"+kind+"_key")
		}
	}
	return slices.DeleteFunc(list, func(name string) bool { return !fs.ValidPath(name) })
}

// addHostKey adds a key under the name of its kind, if that is still free.
func addHostKey(root fs.FS, file string, files map[string][]byte) {
	data, err := fs.ReadFile(root, file)
	if err != nil {
		return
	}
	signer, err := ssh.ParsePrivateKey(data)
	if err != nil {
		return
	}
	kind := map[string]string{ssh.KeyAlgoED25519: "ed25519", ssh.KeyAlgoRSA: "rsa", ssh.KeyAlgoECDSA256: "ecdsa",
		ssh.KeyAlgoECDSA384: "ecdsa", ssh.KeyAlgoECDSA521: "ecdsa"}[signer.PublicKey().Type()]
	name := "ssh_host_" + kind + "_key"
	if kind == "" || files[name] != nil {
		return
	}
	files[name] = data
	files[name+".pub"] = ssh.MarshalAuthorizedKey(signer.PublicKey())
}

// authorizedKeys reads the files of keys that may log in, the person's first:
// cloud images put the same key into root's file with a forced command.
func authorizedKeys(root fs.FS, sudoUser string) [][]byte {
	var files []string
	if home := homeOf(root, sudoUser); home != "" {
		files = append(files, home+"/.ssh/authorized_keys")
	}
	home := homeOf(root, "root")
	if home == "" {
		home = "root"
	}
	files = append(files, home+"/.ssh/authorized_keys", home+"/.ssh/authorized_keys2", "etc/ssh/authorized_keys.d/root", xnodeFolder+"/authorized_keys")
	if sudoUser != "" && fs.ValidPath("etc/ssh/authorized_keys.d/"+sudoUser) {
		files = append(files, "etc/ssh/authorized_keys.d/"+sudoUser)
	}
	var list [][]byte
	for _, name := range files {
		if data, err := fs.ReadFile(root, name); err == nil {
			list = append(list, data)
		}
	}
	return list
}

// homeOf reads a home folder from /etc/passwd, relative to the root.
func homeOf(root fs.FS, user string) string {
	if user == "" {
		return ""
	}
	data, err := fs.ReadFile(root, "etc/passwd")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Split(line, ":"); len(fields) == 7 && fields[0] == user {
			if home := strings.TrimPrefix(path.Clean(fields[5]), "/"); fs.ValidPath(home) {
				return home
			}
		}
	}
	return ""
}

// joinKeys makes one file of several. Lines that are no keys are left out. A
// key counts once: sshd takes the first line that fits, so a line without
// options is preferred to one that restricts the same key.
func joinKeys(lists ...[]byte) []byte {
	type entry struct {
		line       string
		restricted bool
	}
	var order []string
	found := map[string]entry{}
	for _, list := range lists {
		for line := range strings.Lines(string(list)) {
			line = strings.TrimSpace(line)
			key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
			if err != nil || len(rest) > 0 || strings.HasPrefix(line, "#") {
				continue
			}
			id, now := string(key.Marshal()), entry{line, len(options) > 0}
			before, known := found[id]
			if !known {
				order = append(order, id)
			}
			if !known || before.restricted && !now.restricted {
				found[id] = now
			}
		}
	}
	var out bytes.Buffer
	for _, id := range order {
		fmt.Fprintln(&out, found[id].line)
	}
	return out.Bytes()
}

// complete lays the operator's files over what was collected. The keys of the
// image count beside those of the old system, unless the operator names keys.
func complete(collected, image, operator *nodeconfig.Config) (*nodeconfig.Config, []string) {
	base := &nodeconfig.Config{Files: map[string][]byte{}}
	for name, data := range collected.Files {
		base.Files[name] = data
	}
	if keys := joinKeys(image.Files["authorized_keys"], collected.Files["authorized_keys"]); len(keys) > 0 {
		base.Files["authorized_keys"] = keys
	}
	return nodeconfig.Merge(base, operator, nil)
}
