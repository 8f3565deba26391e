package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"xnodeos.org/internal/atomicfile"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/sshsign"
	"xnodeos.org/internal/trust"
)

// keyRole is something that a key is for.
type keyRole struct {
	name      string
	namespace string // of SSH signatures; "" for the Nix cache key
	file      string // the default name of the private key file
	belongs   string // where the public half goes and how the key is used; KEYFILE is the private key file
}

func keyRoles() []keyRole {
	const signers = "Put this line into trust/allowed_signers of the node config and of the config repository:\n"
	return []keyRole{
		{"announce", trust.NamespaceAnnounce, "xnode-announce-key", signers + "It signs the record that says which release is current."},
		{"git", trust.NamespaceGit, "xnode-git-key", signers + "It signs commits: git config gpg.format ssh; git config user.signingkey KEYFILE.pub"},
		{"manifest", trust.NamespaceManifest, "xnode-manifest-key", signers + "It signs images: xnodeos image build --sign KEYFILE --sequence N --time UNIX ..."},
		{"trust", trust.NamespaceTrust, "xnode-trust-key", "Put this line into trust/allowed_signers of the node config, and the private key offline:\n" +
			"It signs trust.json, which replaces all other keys."},
		{"cache", "", "xnode-cache-key", "Put this line into nix-keys of the node config:\nIt signs store paths: nix store sign --key-file KEYFILE PATH"},
	}
}

func keyRoleNames() []string {
	var names []string
	for _, r := range keyRoles() {
		names = append(names, r.name)
	}
	return names
}

func newKeyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make the keys that nodes trust",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeyNewCommand())
	return cmd
}

// keyFlags are the words of `key new` as the user gave them.
type keyFlags struct {
	role    string
	out     string
	comment string
	name    string
	json    bool
}

func newKeyNewCommand() *cobra.Command {
	var f keyFlags
	cmd := &cobra.Command{
		Use:   "new --for ROLE",
		Short: "Make a key for one role",
		Long: `Make a key and say where its public half belongs.

ROLE is what the key may sign:
  announce  the record that says which release is current
  git       commits of the config repository
  manifest  images: manifest.json and SHA256SUMS
  trust     trust.json, which replaces all other keys; keep it offline
  cache     store paths of a Nix binary cache (with --name)

The first four are ordinary ssh-ed25519 keys, in FILE and FILE.pub; any key that
ssh-keygen made will do as well, also one that lives in an ssh-agent. One key may
have several roles: join the names in namespaces="...".

The private key has no passphrase. Give it one with: ssh-keygen -p -f FILE
Nothing is ever overwritten.

Exit codes: 0 done, 1 failed, 2 wrong usage.`,
		Example: `  xnodeos key new --for manifest --out ~/.ssh/xnode-manifest --comment ops@example.org
  xnodeos key new --for announce
  xnodeos key new --for cache --name cache.example.org-1 --out cache-key
  xnodeos key new --for git --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runKeyNew(cmd.OutOrStdout(), f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.role, "for", "", "what the key signs: "+strings.Join(keyRoleNames(), ", ")+" (required)")
	fl.StringVar(&f.out, "out", "", "private key file; the public key is FILE.pub (default: xnode-ROLE-key)")
	fl.StringVar(&f.comment, "comment", "", "comment in the key, best the address of its owner (default: the key's namespace)")
	fl.StringVar(&f.name, "name", "", "cache: name of the key, as in cache.example.org-1")
	fl.BoolVar(&f.json, "json", false, "print the result as JSON")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions(keyRoleNames(), cobra.ShellCompDirectiveNoFileComp)))
	for _, name := range []string{"comment", "name"} {
		cobra.CheckErr(cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
	return cmd
}

// keyResult is what was made. The private key itself is only in its file.
type keyResult struct {
	For         string `json:"for"`
	Private     string `json:"private"`
	Public      string `json:"public"`
	Namespace   string `json:"namespace,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"`
	Name        string `json:"name,omitempty"`
	// File is the file of the node config that Line goes into.
	File string `json:"file"`
	Line string `json:"line"`
}

func runKeyNew(w io.Writer, f keyFlags) error {
	role, err := f.check()
	if err != nil {
		return err
	}
	result := keyResult{For: role.name, Private: f.out, Public: f.out + ".pub", Namespace: role.namespace}
	var secret, public []byte
	if role.namespace == "" {
		key, err := nix.GenerateCacheKey(f.name)
		if err != nil {
			return &usageError{fmt.Errorf("--name: %w", err)}
		}
		secret, public = key.Secret(), []byte(key.Public())
		result.Name, result.File, result.Line = key.Name, "nix-keys", key.Public()
	} else {
		pair, err := sshsign.GenerateKey(f.comment)
		if err != nil {
			return &usageError{fmt.Errorf("--comment: %w", err)}
		}
		secret, public = pair.PrivateFile(), pair.PublicFile
		result.Fingerprint = pair.PublicKey.Fingerprint()
		result.File, result.Line = "trust/allowed_signers", trust.Line(pair.PublicKey, f.comment, role.namespace)
	}
	if err := writeKeyFiles(result, secret, public); err != nil {
		return err
	}
	return printKey(w, role, result, f.json)
}

// check fills the defaults in and refuses what does not go together.
func (f *keyFlags) check() (keyRole, error) {
	names := strings.Join(keyRoleNames(), ", ")
	if f.role == "" {
		return keyRole{}, usagef("--for is missing; want one of %s", names)
	}
	roles := keyRoles()
	at := slices.IndexFunc(roles, func(r keyRole) bool { return r.name == f.role })
	if at < 0 {
		return keyRole{}, usagef("--for: %q is not one of %s", f.role, names)
	}
	role := roles[at]
	switch cache := role.namespace == ""; {
	case cache && f.name == "":
		return role, usagef("--for cache needs --name, by which Nix knows the key, as in cache.example.org-1")
	case cache && f.comment != "":
		return role, usagef("--comment does not go with --for cache; a cache key has a name instead")
	case !cache && f.name != "":
		return role, usagef("--name goes with --for cache only; other keys have a --comment")
	}
	if f.out == "" {
		f.out = role.file
	}
	if f.comment == "" {
		f.comment = role.namespace
	}
	return role, nil
}

// writeKeyFiles writes both files or, if one of the names is taken, neither.
func writeKeyFiles(result keyResult, secret, public []byte) error {
	var files atomicfile.Set
	defer files.Abort() //nolint:errcheck // after Commit it does nothing, after an error that one counts
	private, err := files.CreateNew(result.Private, 0o600)
	if err != nil {
		return err
	}
	pub, err := files.CreateNew(result.Public, 0o644)
	if err != nil {
		return err
	}
	if _, err := private.Write(secret); err != nil {
		return err
	}
	if _, err := pub.Write(public); err != nil {
		return err
	}
	return files.Commit()
}

func printKey(w io.Writer, role keyRole, result keyResult, asJSON bool) error {
	if asJSON {
		return writeJSON(w, result)
	}
	where, use, _ := strings.Cut(role.belongs, "\n")
	use = strings.ReplaceAll(use, "KEYFILE", shellWord(result.Private))
	fmt.Fprintf(w, "private key  %s (mode 0600, no passphrase)\npublic key   %s\n", result.Private, result.Public)
	if result.Fingerprint != "" {
		fmt.Fprintf(w, "fingerprint  %s\n", result.Fingerprint)
	}
	_, err := fmt.Fprintf(w, "\n%s\n\n%s\n\n%s\n", where, result.Line, use)
	return err
}

// shellWord quotes a path so that a printed command can be pasted.
func shellWord(path string) string {
	if !strings.ContainsAny(path, " \t'\"$\\`*?!&|;<>()[]{}#~") {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
