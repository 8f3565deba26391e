# Debian's kernel and those of its modules that modules.txt names.
{ packages, build }:

let
  inherit (builtins) attrNames concatMap filter head match readDir readFile split substring stringLength;
  package = "linux-image-amd64";
  root = packages.root package;

  images = filter (name: match "vmlinuz-.*" name != null) (attrNames (readDir (/. + "${root}/boot")));
  imageFile = if images == [ ] then throw "package ${package} (${root}) has no boot/vmlinuz-*" else head images;
  version = substring 8 (stringLength imageFile) imageFile;

  # ".ko" files below kernel/, walked once
  walk = prefix:
    let entries = readDir (/. + "${root}/lib/modules/${version}/${prefix}"); in
    concatMap
      (name:
        let path = "${prefix}/${name}"; in
        if entries.${name} == "directory" then walk path
        else if match ".*\\.ko" name != null then [ path ] else [ ])
      (attrNames entries);
  all = walk "kernel";

  # Patterns fall into groups by their literal beginning, to keep the matching cheap.
  literal = pattern: head (split "[*]" pattern);
  starts = prefix: path: substring 0 (stringLength prefix) path == prefix;
  matching = pattern:
    let prefix = "kernel/${literal pattern}"; in
    filter (path: starts prefix path && match "kernel/${packages.regex pattern}\\.ko" path != null) all;
  named = pattern:
    let hits = matching pattern; in
    if hits == [ ] then throw "modules.txt: no module of ${version} matches ${pattern}" else hits;

  patterns = kind: map (line: builtins.elemAt (packages.words line) 1)
    (filter (line: head (packages.words line) == kind) (packages.lines (readFile ./modules.txt)));

  wanted = concatMap named (patterns "want");
  perhaps = concatMap matching (patterns "may");
  below = map (path: "lib/modules/${version}/${path}");
in
{
  image = builtins.path { name = "pocket-kernel-${version}"; path = /. + "${root}/boot/${imageFile}"; };

  modules = build.run "pocket-modules-${version}" ./modules.sh {
    inherit version;
    source = packages.cut "linux-modules" root
      (below (wanted ++ perhaps ++ [ "modules.builtin" "modules.builtin.modinfo" "modules.order" ]));
    wanted = toString wanted;
    passAsFile = [ "wanted" ];
    depmod = build.tool "depmod" "kmod" "bin/kmod";
    modinfo = build.tool "modinfo" "kmod" "bin/kmod";
    zstd = build.tool "zstd" "zstd" "usr/bin/zstd";
  };
}
