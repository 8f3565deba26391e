# Which files of which package make the system. "*" stands for any characters
# within one folder. A package that is not named here brings its shared
# libraries (anyLibrary). A pattern that matches no file fails the evaluation,
# so that a changed package is noticed, not half taken.
let
  libraries = names: map (name: "*lib/x86_64-linux-gnu/${name}") names;
  below = folder: names: map (name: "${folder}/${name}") names;
in
{
  anyLibrary = [
    "lib/x86_64-linux-gnu/*.so.*"
    "usr/lib/x86_64-linux-gnu/*.so.*"
  ];

  packages = {
    busybox-static = [ "bin/busybox" ];
    patchelf = [ "usr/bin/patchelf" ];
    zstd = [ "usr/bin/zstd" ];
    util-linux = [ "usr/bin/flock" ];
    kmod = [ "bin/kmod" "sbin/depmod" "sbin/insmod" "sbin/lsmod" "sbin/modinfo" "sbin/modprobe" "sbin/rmmod" ];

    libc6 = below "lib/x86_64-linux-gnu" [
      "ld-linux-x86-64.so.2"
      "libc.so.6"
      "libm.so.6"
      "libnss_dns.so.2" # nix loads it by name before it forks
      "libresolv.so.2"
    ];
    "libstdc++6" = [ "usr/lib/x86_64-linux-gnu/libstdc++.so.*" ];
    libicu72 = below "usr/lib/x86_64-linux-gnu" [ "libicudata.so.*" "libicuuc.so.*" ];
    libssl3 = [ "usr/lib/x86_64-linux-gnu/libcrypto.so.3" ];
    libreadline8 = [ "lib/x86_64-linux-gnu/lib*.so.8*" ];
    libbrotli1 = [ "usr/lib/x86_64-linux-gnu/lib*.so.1*" ];
    libsystemd-shared = [ "usr/lib/x86_64-linux-gnu/systemd/*.so" ];
    ca-certificates = [ "usr/share/ca-certificates/mozilla/*.crt" ];

    systemd =
      below "bin" [ "journalctl" "systemctl" "systemd-notify" ]
      ++ below "usr/bin" [ "systemd-analyze" "systemd-cat" "systemd-run" ]
      ++ below "lib/systemd" [
        "systemd"
        "systemd-cgroups-agent"
        "systemd-journald"
        "systemd-networkd"
        "systemd-reply-password"
        "systemd-shutdown"
      ]
      ++ below "lib/udev/rules.d" [ "99-systemd.rules" ]
      ++ below "lib/systemd/system" [
        "basic.target"
        "ctrl-alt-del.target"
        "final.target"
        "kexec.target"
        "local-fs-pre.target"
        "local-fs.target"
        "multi-user.target"
        "network-online.target"
        "network-pre.target"
        "network.target"
        "nss-lookup.target"
        "nss-user-lookup.target"
        "paths.target"
        "poweroff.target"
        "halt.target"
        "reboot.target"
        "remote-fs-pre.target"
        "remote-fs.target"
        "shutdown.target"
        "sigpwr.target"
        "slices.target"
        "sockets.target"
        "swap.target"
        "sysinit.target"
        "systemd-halt.service"
        "systemd-journald-dev-log.socket"
        "systemd-journald.service"
        "systemd-journald.socket"
        "systemd-kexec.service"
        "systemd-networkd.service"
        "systemd-networkd.socket"
        "systemd-poweroff.service"
        "systemd-reboot.service"
        "time-set.target"
        "time-sync.target"
        "timers.target"
        "umount.target"
        "user.slice"
      ];

    systemd-timesyncd = [ "lib/systemd/systemd-timesyncd" ];

    udev =
      [ "bin/udevadm" ]
      ++ below "lib/udev" [ "ata_id" "cdrom_id" "scsi_id" ]
      ++ below "lib/udev/rules.d" [
        "50-udev-default.rules"
        "60-block.rules"
        "60-cdrom_id.rules"
        "60-persistent-storage.rules"
        "60-serial.rules"
        "73-special-net-names.rules"
        "75-net-description.rules"
        "80-drivers.rules"
        "80-net-setup-link.rules"
      ]
      ++ below "lib/systemd/network" [ "73-usb-net-by-mac.link" "99-default.link" ]
      ++ [ "lib/systemd/systemd-udevd" ]
      ++ below "lib/systemd/system" [
        "systemd-udev-trigger.service"
        "systemd-udevd-control.socket"
        "systemd-udevd-kernel.socket"
        "systemd-udevd.service"
      ];

    openssh-server = [ "usr/sbin/sshd" ];
    openssh-client = below "usr/bin" [ "scp" "ssh" "ssh-keygen" ];

    nix-bin =
      [ "usr/lib/nix/*.so" "usr/libexec/nix/build-remote" ]
      ++ below "usr/bin" [
        "nix"
        "nix-build"
        "nix-collect-garbage"
        "nix-copy-closure"
        "nix-daemon"
        "nix-env"
        "nix-hash"
        "nix-instantiate"
        "nix-shell"
        "nix-store"
      ];
  };
}
