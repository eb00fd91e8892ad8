package source

import (
	"encoding/json"
	"regexp"
	"strings"
)

// partUserMeta is wp_usermeta.
const partUserMeta Part = "usermeta"

// wordPress reads wp_users and beside it wp_usermeta, as CSV or JSON
// (docs/sources/wordpress.md).
var wordPress = &spec{
	csv:     dialect{nulls: true},
	serial:  true,
	convert: convertWordPress,
	parts: map[Part]part{partUserMeta: {func(v value, l *losses) (keys, fields []string) {
		if k := v.get("user_id").str(); k != "" {
			keys = append(keys, k)
		}
		v.get("umeta_id").use()
		key := v.get("meta_key").str()
		switch {
		case key == "first_name", key == "last_name", key == "nickname", key == "locale",
			strings.HasSuffix(key, "capabilities"):
			return keys, []string{key, v.get("meta_value").str()}
		}
		if m := v.get("meta_value"); !m.empty() {
			l.add("usermeta[" + name64(key) + "]")
			m.use()
		}
		return keys, nil
	}}},
}

// phpTrue finds the names that are set in a PHP-serialised array of booleans,
// such as a:1:{s:6:"editor";b:1;}.
var phpTrue = regexp.MustCompile(`s:\d+:"([^"]+)";b:1;`)

func convertWordPress(w *row) error {
	w.source(w.get("ID"), w.get("id"))
	meta, err := w.sides(partUserMeta, w.id)
	if err != nil {
		return err
	}
	w.names(value{}, value{}, w.get("display_name"), w.get("display_name"), value{})
	p := &w.cmd().Profile
	for _, f := range meta {
		switch key, val := f[0], strings.TrimSpace(f[1]); {
		case key == "first_name":
			p.FirstName = firstOf(p.FirstName, val)
		case key == "last_name":
			p.LastName = firstOf(p.LastName, val)
		case key == "nickname":
			p.NickName = firstOf(p.NickName, val)
		case key == "locale":
			p.PreferredLanguage = firstOf(p.PreferredLanguage, language(val))
		default:
			var roles []string
			for _, m := range phpTrue.FindAllStringSubmatch(val, -1) {
				roles = append(roles, m[1])
			}
			if len(roles) > 0 {
				b, err := json.Marshal(roles)
				if err != nil {
					return err
				}
				w.metadata(key, b)
			}
		}
	}
	w.userName(w.get("user_login"))
	w.email(w.get("user_email"), value{})
	w.ignore("user_nicename", "user_activation_key")
	w.falsy("user_status")
	w.hash(w.get("user_pass").str(), nil)
	return nil
}
