package password

import (
	"os/exec"
	"strings"
	"testing"
)

// TestHashesOfOtherTools verifies hashes that other programs make at this very
// moment, where they are installed (Debian's whois, apache2-utils, openssl,
// slapd and python3-passlib). Hashes that the same programs made once are in
// testdata/vectors.tsv, so that nothing goes untested without them.
func TestHashesOfOtherTools(t *testing.T) {
	const pw = "Pässwort mit $ und 漢字" // not golden: nothing here can come from the file
	run := func(name string, args ...string) (string, bool) {
		path, err := exec.LookPath(name)
		if err != nil {
			if path, err = exec.LookPath("/usr/sbin/" + name); err != nil {
				t.Logf("%s is not installed", name)
				return "", false
			}
		}
		out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
		if err != nil {
			t.Errorf("%s %v: %v: %s", name, args, err, out)
			return "", false
		}
		return strings.TrimSpace(string(out)), true
	}
	check := func(format, encoded string) {
		t.Helper()
		f, err := Recognise(encoded)
		if err != nil || f.Name != format {
			t.Errorf("%s: recognised as %q, %v: %s", format, f.Name, err, encoded)
			return
		}
		for candidate, want := range map[string]bool{pw: true, pw + "x": false} {
			if ok, err := Verify(t.Context(), encoded, candidate, nil); ok != want || err != nil {
				t.Errorf("%s: Verify = %v, %v, want %v: %s", format, ok, err, want, encoded)
			}
		}
	}
	for _, c := range []struct{ format, command string }{
		{"yescrypt", "mkpasswd -m yescrypt -R 1"},
		{"scrypt", "mkpasswd -m scrypt -R 6"},
		{"bcrypt", "mkpasswd -m bcrypt -R 4"},
		{"sha512-crypt", "mkpasswd -m sha512crypt -R 1000"},
		{"sha256-crypt", "mkpasswd -m sha256crypt"},
		{"md5-crypt", "mkpasswd -m md5crypt"},
		{"apr1-md5-crypt", "htpasswd -nbm u"},
		{"bcrypt", "htpasswd -nbB -C 4 u"},
		{"ldap-sha", "htpasswd -nbs u"},
		{"sha512-crypt", "openssl passwd -6"},
		{"sha256-crypt", "openssl passwd -5"},
		{"md5-crypt", "openssl passwd -1"},
		{"apr1-md5-crypt", "openssl passwd -apr1"},
		{"ldap-ssha", "slappasswd -h {SSHA} -s"},
		{"ldap-smd5", "slappasswd -h {SMD5} -s"},
		{"ldap-sha", "slappasswd -h {SHA} -s"},
		{"ldap-md5", "slappasswd -h {MD5} -s"},
	} {
		words := strings.Fields(c.command)
		if out, ok := run(words[0], append(words[1:], pw)...); ok {
			check(c.format, strings.TrimPrefix(out, "u:"))
		}
	}

	const script = `
import sys, passlib.hash as h
p = sys.argv[1]
print("bcrypt-sha256", h.bcrypt_sha256.using(rounds=4).hash(p)) if h.bcrypt.has_backend() else None
print("pbkdf2-sha1", h.pbkdf2_sha1.using(rounds=100).hash(p))
print("pbkdf2-sha256", h.pbkdf2_sha256.using(rounds=100).hash(p))
print("pbkdf2-sha512", h.pbkdf2_sha512.using(rounds=100).hash(p))
print("ldap-pbkdf2-sha256", h.ldap_pbkdf2_sha256.using(rounds=100).hash(p))
print("django-pbkdf2-sha256", h.django_pbkdf2_sha256.using(rounds=100).hash(p))
print("django-sha1", h.django_salted_sha1.hash(p))
print("scrypt", h.scrypt.using(rounds=4).hash(p))
print("phpass", h.phpass.using(rounds=7).hash(p))
print("md5-crypt", h.md5_crypt.hash(p))
print("sha1-crypt", h.sha1_crypt.using(rounds=100).hash(p))
print("sha256-crypt", h.sha256_crypt.using(rounds=1000).hash(p))
print("sha512-crypt", h.ldap_sha512_crypt.using(rounds=1000).hash(p))
print("ldap-smd5", h.ldap_salted_md5.hash(p))
print("ldap-ssha512", h.ldap_salted_sha512.hash(p))
print("md5", h.hex_md5.hash(p))
`
	// Debian's own python has python3-passlib; another one first in the path
	// may not.
	for _, python := range []string{"/usr/bin/python3", "python3"} {
		if exec.CommandContext(t.Context(), python, "-c", "import passlib").Run() != nil {
			t.Logf("%s has no passlib", python)
			continue
		}
		out, ok := run(python, "-W", "ignore", "-c", script, pw)
		if !ok {
			break
		}
		for line := range strings.Lines(out) {
			format, encoded, _ := strings.Cut(strings.TrimSpace(line), " ")
			if format != "None" {
				check(format, encoded)
			}
		}
		break
	}
}
