# /etc of the pocket system, its own units and the scripts that they run.
{ build, busybox, systemd, ssh, nix, certificates, label, agents, units, wantedBy, files }:

let
  inherit (builtins) attrNames concatStringsSep map toFile;

  # "name=store path" words; a name is a path below the folder that it goes to
  texts = set: concatStringsSep " " (map (name: "${name}=${toFile (baseNameOf name) set.${name}}") (attrNames set));
  words = set: concatStringsSep " " (map (name: "${name}=${set.${name}}") (attrNames set));

  scripts = build.run "pocket-scripts" ./scripts.sh {
    inherit busybox ssh;
    source = ./scripts;
  };
in
build.run "pocket-etc" ./etc.sh {
  inherit busybox systemd ssh nix certificates label scripts;
  source = ./etc;
  agent = if agents == [ ] then "" else builtins.head agents;
  agentFiles = ./agent;
  ownUnits = ./units;
  moreUnits = texts units;
  moreFiles = texts files;
  wantedBy = words wantedBy;
  # units of Debian's packages and what pulls them in
  debianUnits = toString [
    "systemd-journald.socket=sockets.target"
    "systemd-journald-dev-log.socket=sockets.target"
    "systemd-udevd-control.socket=sockets.target"
    "systemd-udevd-kernel.socket=sockets.target"
    "systemd-networkd.socket=sockets.target"
    "systemd-journald.service=sysinit.target"
    "systemd-udevd.service=sysinit.target"
    "systemd-udev-trigger.service=sysinit.target"
    "systemd-networkd.service=multi-user.target"
  ];
}
