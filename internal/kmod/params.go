package kmod

import "strings"

// Params returns what the words of a kernel command line say to one module, in
// the form that LoadWith takes: "mlx4_core.log_num_mgm_entry_size=-1" gives
// mlx4_core "log_num_mgm_entry_size=-1". The kernel hands such words only to
// what is built in; for modules modprobe does it.
func Params(words []string, module string) string {
	var params []string
	for _, word := range words {
		key, value, hasValue := strings.Cut(word, "=")
		name, param, ok := strings.Cut(key, ".")
		if !ok || param == "" || normal(name) != normal(module) {
			continue
		}
		if hasValue {
			if value = strings.ReplaceAll(value, `"`, ""); strings.ContainsAny(value, " \t") {
				value = `"` + value + `"`
			}
			param += "=" + value
		}
		params = append(params, param)
	}
	return strings.Join(params, " ")
}
