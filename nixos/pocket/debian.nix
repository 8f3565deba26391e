# Files of unpacked Debian packages as store paths.
#
# `debs` is a JSON file {"<name in packages.txt>": "<folder>"}; a folder that is
# not absolute lies beside the file. Only listed files enter the store, by
# builtins.path, so that a store path depends on their bytes, names and x bits
# alone: not on the host, its packages, its clock, or who unpacked them.
{ debs }:

let
  inherit (builtins) attrNames concatStringsSep elem elemAt filter foldl' fromJSON genList head isList isString
    length listToAttrs match pathExists readDir readFile replaceStrings split stringLength substring tail;

  listed = import ./files.nix;
  table = fromJSON (readFile debs);
  base = dirOf (toString debs);

  root = package:
    let folder = table.${package} or (throw "package ${package} is in packages.txt, but not unpacked: ${toString debs} does not name it");
    in if substring 0 1 folder == "/" then folder else "${base}/${folder}";

  lines = text: filter (line: isString line && line != "" && substring 0 1 line != "#") (split "\n" text);
  words = line: filter (word: isString word && word != "") (split " +" line);

  # [{ name, group }], names without "@"
  packages = map
    (line:
      let w = words line; in { name = replaceStrings [ "@" ] [ "" ] (head w); group = elemAt w 1; })
    (lines (readFile ./packages.txt));

  regex = pattern: replaceStrings [ "**" "*" "." "+" ] [ ".*" "[^/]*" "\\." "\\+" ] pattern;

  # Every file of a folder that one of the patterns names, as relative paths.
  find = folder: patterns:
    let
      expand = prefix: parts: pattern:
        let
          part = head parts;
          rest = tail parts;
          here = if prefix == "" then folder else "${folder}/${prefix}";
          join = name: if prefix == "" then name else "${prefix}/${name}";
          names =
            if match ".*[*].*" part == null
            then (if pathExists "${here}/${part}" || link here part then [ part ] else [ ])
            else filter (name: match (regex part) name != null) (if pathExists here then attrNames (readDir (/. + here)) else [ ]);
        in
        if rest == [ ] then map join names
        else builtins.concatMap (name: expand (join name) rest pattern) names;
      # pathExists follows links, and a link may point outside its package
      link = here: name: pathExists here && (readDir (/. + here)) ? ${name};
      found = pattern: expand "" (filter isString (split "/" pattern)) pattern;
    in
    map (pattern: { inherit pattern; files = found pattern; }) patterns;

  parents = path:
    let parts = filter isString (split "/" path);
    in genList (n: concatStringsSep "/" (genList (elemAt parts) (n + 1))) (length parts);

  # A folder cut down to a list of files.
  cut = name: folder: files:
    let
      wanted = listToAttrs (builtins.concatMap (file: map (p: { name = p; value = true; }) (parents file)) files);
      skip = stringLength folder + 1;
    in
    builtins.path {
      inherit name;
      path = /. + folder;
      filter = path: type: wanted ? ${substring skip (stringLength path) path};
    };

  take = package:
    let
      folder = root package;
      byName = listed.packages ? ${package};
      results = find folder (listed.packages.${package} or listed.anyLibrary);
      missing = if byName then filter (r: r.files == [ ]) results else [ ];
      files = builtins.concatMap (r: r.files) results;
    in
    if missing != [ ]
    then throw "package ${package} (${folder}) has no file ${concatStringsSep ", " (map (r: r.pattern) missing)}"
    else if files == [ ] then throw "package ${package} (${folder}) has no shared library"
    else cut (replaceStrings [ "+" "@" ] [ "x" "" ] package) folder files;
in
{
  inherit root cut find lines words regex packages;
  group = name: map (p: take p.name) (filter (p: p.group == name) packages);
  one = take;
}
