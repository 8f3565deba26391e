# The pocket system: a small system with the NixOS contract, built from Debian
# packages alone. See README.md beside this file.
#
#   debs      JSON file: package name -> folder where it is unpacked
#   label     what the system calls itself in boot.json and on the console
#   handover  "script" (init is the stage 2 script) or "prepare-root"
#   broken    null or the name of one of variants.nix: what fails on purpose
#   xnode     the agent's program, an absolute path; null leaves the agent out
#   switchEnds  how switch-to-configuration ends whatever it did: "", "exit N"
#             or "signal N"
#   units     more systemd units: { "name.service" = "text"; }
#   wantedBy  what pulls them in: { "name.service" = "multi-user.target"; }
#   files     more files below /etc: { "motd" = "text"; }
{ debs
, label ? "pocket-1"
, handover ? "script"
, broken ? null
, xnode ? null
, switchEnds ? ""
, units ? { }
, wantedBy ? { }
, files ? { }
}:

let
  packages = import ./debian.nix { inherit debs; };
  build = import ./build.nix { inherit packages; };

  busybox = build.busybox;
  base = build.tree "pocket-base" "base" [ ];
  systemd = build.tree "pocket-systemd" "systemd" [ base ];
  ssh = build.tree "pocket-ssh" "ssh" [ base systemd ];
  nix = build.tree "pocket-nix" "nix" [ base ];
  kernel = import ./kernel.nix { inherit packages build; };
  certificates = build.run "pocket-certificates" ./certificates.sh { sources = packages.group "certs"; };
  sw = build.run "pocket-sw" ./sw.sh { inherit busybox systemd; trees = [ base systemd ssh nix ] ++ agents; };

  # toFile makes no programs, so a broken agent goes through a copy.
  program =
    if variant ? program then build.run "xnode" ./program.sh { source = variant.program; }
    else builtins.path { name = "xnode"; path = /. + xnode; };
  agent = build.run "pocket-agent" ./agent.sh { inherit program; };
  agents = if xnode == null then [ ] else [ agent ];

  variants = import ./variants.nix { inherit busybox; };
  variant =
    if broken == null then { }
    else variants.${broken} or (throw "broken = \"${broken}\": it must be one of ${toString (builtins.attrNames variants)}");

  etc = import ./etc.nix {
    inherit build busybox systemd ssh nix certificates label agents;
    units = units // (variant.units or { });
    wantedBy = wantedBy // (variant.wantedBy or { });
    files = files // (variant.files or { });
  };
in
assert builtins.elem handover [ "script" "prepare-root" ] || throw "handover = \"${handover}\": it must be \"script\" or \"prepare-root\"";
assert builtins.match "[A-Za-z0-9][A-Za-z0-9._-]{0,63}" label != null || throw "label = \"${label}\": letters, digits, dots, dashes and underscores, at most 64";

build.run "xnodeos-${label}" ./toplevel.sh {
  inherit busybox systemd sw etc label handover switchEnds;
  inherit (kernel) image modules;
  flock = "${base}/bin/flock";
  # no_timer_check: a loaded QEMU misses the ticks of the kernel's timer check,
  # and the kernel then gives up a timer that works.
  kernelParams = toString [ "quiet" "audit=0" "no_timer_check" ];
  activationEnds = variant.activationEnds or "";
  activate = ./activate.sh;
  boot = ./boot.sh;
  switch = ./switch-to-configuration.sh;
}
