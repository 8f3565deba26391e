# How derivations are made here: the builder is the busybox of the named
# package and every other tool runs from its package's files, so that a build
# reads nothing of the host, with or without a sandbox.
{ packages }:

let
  busybox = packages.one "busybox-static";

  run = name: script: attributes: derivation (attributes // {
    inherit name;
    system = "x86_64-linux";
    builder = "${busybox}/bin/busybox";
    args = [ "sh" script ];
    PATH = "${busybox}/bin";
    LC_ALL = "C";
  });

  # A program of a package before it has its library path in the store. name is
  # what it takes itself for.
  tool = name: package: program:
    let
      libc = packages.one "libc6";
      libraries = map packages.one [ "libc6" "libgcc-s1" "libstdc++6" "zlib1g" "liblzma5" "liblz4-1" "libzstd1" "libssl3" ];
      folders = builtins.concatMap (l: [ "${l}/lib/x86_64-linux-gnu" "${l}/usr/lib/x86_64-linux-gnu" ]) libraries;
    in
    "${libc}/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --argv0 ${name} --library-path ${builtins.concatStringsSep ":" folders} "
    + "${packages.one package}/${program}";
in
{
  inherit busybox run tool;

  tree = name: group: needs: run name ./tree.sh {
    sources = packages.group group;
    inherit needs;
    patchelf = tool "patchelf" "patchelf" "usr/bin/patchelf";
  };
}
