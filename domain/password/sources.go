package password

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// The constructors below turn what a source system stores into an encoding
// that Recognise accepts. Their errors are those of Recognise; nothing that
// they return holds a project's secret.

// FromDigest makes our own encoding of a plain digest: algorithm is "md5",
// "sha1", "sha224", "sha256", "sha384" or "sha512", rounds is at least 1, and
// order says what was hashed, d being the digest so far:
//
//	p        H(password), then H(d)
//	ps       H(password salt), then H(d)
//	sp       H(salt password), then H(d)
//	any      ps or sp, one round
//	symfony  H(password{salt}), then H(d password{salt})
//	phpass   H(salt password), then rounds times H(d password)
func FromDigest(algorithm, order string, rounds int, salt, sum []byte) (string, error) {
	return recognised(fmt.Sprintf("$muster-digest$%s-%s$i=%d$%s$%s", algorithm, order, rounds, encodeB64(salt), encodeB64(sum)))
}

// FromHex makes the encoding of an unsalted digest in hexadecimal, which
// Recognise alone takes for nothing but MD5.
func FromHex(algorithm, digest string) (string, error) {
	sum, err := hex.DecodeString(digest)
	if err != nil {
		return "", malformed("digest-" + nameOf(algorithm))
	}
	return FromDigest(algorithm, "p", 1, nil, sum)
}

// nameOf keeps a caller's text out of errors.
func nameOf(algorithm string) string {
	if alg := algoNamed(algorithm); alg != nil {
		return alg.name
	}
	return "unknown"
}

// FromKeycloak takes a password credential's secretData and credentialData,
// the JSON texts of Keycloak's realm export (version 8 and later).
func FromKeycloak(secretData, credentialData string) (string, error) {
	var secret struct{ Value, Salt string }
	var cred struct {
		HashIterations       int
		Algorithm            string
		AdditionalParameters map[string][]string
	}
	if json.Unmarshal([]byte(secretData), &secret) != nil || json.Unmarshal([]byte(credentialData), &cred) != nil {
		return "", malformed("")
	}
	if cred.Algorithm != "argon2" {
		return FromKeycloakFlat(cred.Algorithm, cred.HashIterations, secret.Salt, secret.Value)
	}
	param := func(name, fallback string) string {
		if v := cred.AdditionalParameters[name]; len(v) > 0 {
			return v[0]
		}
		return fallback
	}
	version, ok := map[string]int{"1.3": 19, "1.0": 16}[param("version", "1.3")]
	if !ok {
		return "", refuse(ErrUnsupported, "argon2", "only versions 16 and 19 exist")
	}
	return recognised(fmt.Sprintf("$argon2%s$v=%d$m=%s,t=%d,p=%s$%s$%s", param("type", "id"), version,
		param("memory", ""), cred.HashIterations, param("parallelism", "1"), unpad(secret.Salt), unpad(secret.Value)))
}

// FromKeycloakFlat takes the fields of a PBKDF2 credential, as exports up to
// version 7 hold them. The derived key is as long as the stored value,
// whatever the algorithm's name suggests. Values that bcrypt plugins store
// whole are taken as they are.
func FromKeycloakFlat(algorithm string, iterations int, salt, value string) (string, error) {
	switch algorithm {
	case "pbkdf2", "pbkdf2-sha256", "pbkdf2-sha512":
		return recognised(fmt.Sprintf("$%s$%d$%s$%s", algorithm, iterations, unpad(salt), unpad(value)))
	case "bcrypt":
		return recognised(value)
	}
	return "", refuse(ErrUnsupported, "", "Keycloak's algorithm is not known")
}

// FromFirebase makes the encoding of an exported Firebase user's salt and
// hash, base64 in either alphabet. ref names the import's secret, whose costs
// f holds; the key itself stays out of the encoding.
func FromFirebase(f Firebase, ref, salt, hash string) (string, error) {
	return recognised(fmt.Sprintf("$muster-firebase$%s$ln=%d,r=%d$%s$%s", ref, f.MemCost, f.Rounds, salt, hash))
}

// FromASPNet takes AspNetUsers.PasswordHash, version 2 or 3.
func FromASPNet(blob string) (string, error) { return recognised(strings.TrimSpace(blob)) }

// FromDjango takes auth_user.password. [ErrUnusable] is a user who has none.
func FromDjango(encoded string) (string, error) { return recognised(encoded) }

// FromLDAP takes a userPassword value, decoded from LDIF's base64. Without a
// {SCHEME} it is the password itself: [ErrPlaintext].
func FromLDAP(userPassword string) (string, error) {
	if !strings.HasPrefix(userPassword, "{") {
		return "", refuse(ErrPlaintext, "", "")
	}
	return recognised(userPassword)
}

// FromKratos takes an identity's hashed_password. Kratos' scrypt writes N
// itself, also below 64 where the usual spelling means its logarithm. A
// Firebase key in the value is kept in secrets, see [Lift].
func FromKratos(hashed string, secrets Secrets, base string) (string, error) {
	if rest, ok := strings.CutPrefix(hashed, "$scrypt$ln="); ok {
		ns, rest, _ := strings.Cut(rest, ",")
		n, _ := number(ns)
		if n = logOf(n); n < 0 {
			return "", malformed("scrypt")
		}
		hashed = "$scrypt$ln=" + strconv.Itoa(n) + "," + rest
	}
	return Lift(hashed, secrets, base)
}

// FromFusionAuth takes a user's encryptionScheme, factor, salt and password.
func FromFusionAuth(scheme string, factor int, salt, hash string) (string, error) {
	saltBytes := field{salt, b64}
	sum := field{hash, b64}
	switch scheme {
	case "bcrypt":
		return recognised(fmt.Sprintf("$2a$%02d$%s%s", factor, salt, hash))
	case "phpass-md5", "phpass-sha512":
		// The salt is used as text, the hash is in crypt(3)'s alphabet.
		sum.enc = cry64
		if !sum.between(minSum, maxSum) {
			return "", malformed("digest-" + scheme[len("phpass-"):])
		}
		return FromDigest(scheme[len("phpass-"):], "phpass", factor, []byte(salt), sum.bytes())
	}
	if !saltBytes.between(1, maxSalt) || !sum.between(minSum, maxSum) {
		return "", malformed("")
	}
	switch scheme {
	case "salted-md5":
		return FromDigest("md5", "ps", factor, saltBytes.bytes(), sum.bytes())
	case "salted-sha256":
		return FromDigest("sha256", "ps", factor, saltBytes.bytes(), sum.bytes())
	case "salted-hmac-sha256":
		return recognised("$hmac-sha256$" + unpad(hash) + "$" + unpad(salt))
	case "salted-pbkdf2-hmac-sha256", "salted-pbkdf2-hmac-sha256-512":
		return recognised(fmt.Sprintf("$pbkdf2-sha256$%d$%s$%s", factor, unpad(salt), unpad(hash)))
	case "salted-pbkdf2-hmac-sha512-512":
		return recognised(fmt.Sprintf("$pbkdf2-sha512$%d$%s$%s", factor, unpad(salt), unpad(hash)))
	}
	return "", refuse(ErrUnsupported, "", "FusionAuth's scheme is not known")
}

// FromClerk takes password_hasher and password_digest of a Clerk export. A
// pepper or a Firebase key in the digest is kept in secrets under base or a
// name made of it (see [Secrets.Keep]).
func FromClerk(hasher, digest string, secrets Secrets, base string) (string, error) {
	part := strings.Split(digest, "$")
	hexed := func(s string) []byte { b, _ := hex.DecodeString(s); return b }
	pbkdf2 := func(algorithm, iterations string, salt, sum []byte) (string, error) {
		return recognised("$pbkdf2-" + algorithm + "$" + iterations + "$" + encodeB64(salt) + "$" + encodeB64(sum))
	}
	bad := malformed("")
	switch hasher {
	case "argon2i", "argon2id", "bcrypt", "bcrypt_sha256_django", "md5", "pbkdf2_sha256_django", "phpass", "md5_phpass", "ldap_ssha":
		if hasher == "ldap_ssha" && !strings.HasPrefix(digest, "{") {
			digest = "{SSHA}" + digest
		}
		return recognised(digest)
	case "scrypt_werkzeug":
		return recognised(strings.TrimPrefix(digest, "$"))
	case "bcrypt_peppered": // the pepper is what follows the 60 characters
		if len(digest) < 62 || digest[60] != '$' {
			return "", malformed("bcrypt-peppered")
		}
		secret := Secret{Pepper: &Pepper{Key: Key(digest[61:]), How: PepperSuffix}}
		if _, err := recognised(digest[:60]); err != nil {
			return "", err
		}
		return Bind(digest[:60], secrets.Keep(base, secret), secret)
	case "scrypt_firebase":
		if len(part) != 6 {
			return "", malformed("firebase-scrypt")
		}
		signer, sep := field{part[2], b64}, field{part[3], b64}
		rounds, ok1 := number(part[4])
		cost, ok2 := number(part[5])
		if !signer.between(minSum, maxSum) || !sep.between(0, 64) || !ok1 || !ok2 {
			return "", malformed("firebase-scrypt")
		}
		return firebase(Firebase{SignerKey: signer.bytes(), SaltSeparator: sep.bytes(), Rounds: rounds, MemCost: cost}, part[1], part[0], secrets, base)
	case "sha256":
		return FromHex("sha256", digest)
	case "md5_salted", "sha256_salted":
		if len(part) != 2 || part[0] == "" {
			return "", bad
		}
		algorithm := strings.TrimSuffix(hasher, "_salted")
		return FromDigest(algorithm, "any", 1, []byte(part[0]), hexed(part[1]))
	case "pbkdf2_sha256":
		if len(part) != 4 {
			return "", bad
		}
		return recognised("$pbkdf2-sha256$" + part[1] + "$" + part[2] + "$" + part[3])
	case "pbkdf2_sha1": // iterations, salt in hexadecimal if it can be, hash in hexadecimal, its length
		if len(part) != 4 && len(part) != 5 {
			return "", bad
		}
		salt := []byte(part[2])
		if b, err := hex.DecodeString(part[2]); err == nil {
			salt = b
		}
		return pbkdf2("sha1", part[1], salt, hexed(part[3]))
	case "pbkdf2_sha512":
		if len(part) != 4 {
			return "", bad
		}
		return pbkdf2("sha512", part[1], []byte(part[2]), hexed(part[3]))
	case "pbkdf2_sha512_hex":
		if len(part) != 4 || hexed(part[2]) == nil {
			return "", bad
		}
		return pbkdf2("sha512", part[1], hexed(part[2]), hexed(part[3]))
	case "sha512_symfony":
		if len(part) != 4 {
			return "", bad
		}
		rounds, _ := number(part[1])
		sum := field{part[3], b64}
		if !sum.between(64, 64) {
			return "", bad
		}
		return FromDigest("sha512", "symfony", rounds, []byte(part[2]), sum.bytes())
	case "hmac_sha256_utf16_b64":
		// The order of salt and hash is not documented; only the hash has to
		// have 32 bytes.
		if len(part) != 2 {
			return "", bad
		}
		salt, sum := part[0], part[1]
		if !(field{sum, b64}).between(32, 32) {
			salt, sum = sum, salt
		}
		return recognised("$muster-hmac-utf16$" + unpad(salt) + "$" + unpad(sum))
	}
	return "", refuse(ErrUnsupported, "", "Clerk's hasher is not known, or keeps the password elsewhere")
}

// OktaHash is credentials.password.hash of Okta's user API.
type OktaHash struct {
	Algorithm       string `json:"algorithm"`       // BCRYPT, SHA-512, SHA-256, SHA-1, MD5, PBKDF2
	WorkFactor      int    `json:"workFactor"`      // BCRYPT
	Salt            string `json:"salt"`            // base64, BCRYPT's own alphabet there
	SaltOrder       string `json:"saltOrder"`       // PREFIX or POSTFIX
	Value           string `json:"value"`           // as Salt
	DigestAlgorithm string `json:"digestAlgorithm"` // PBKDF2: SHA256_HMAC or SHA512_HMAC
	IterationCount  int    `json:"iterationCount"`  // PBKDF2
}

// FromOkta takes a hash in the form of Okta's import.
func FromOkta(h OktaHash) (string, error) {
	switch h.Algorithm {
	case "BCRYPT":
		return recognised(fmt.Sprintf("$2a$%02d$%s%s", h.WorkFactor, h.Salt, h.Value))
	case "PBKDF2":
		algorithm, ok := map[string]string{"SHA256_HMAC": "sha256", "SHA512_HMAC": "sha512"}[h.DigestAlgorithm]
		if !ok {
			return "", refuse(ErrUnsupported, "", "Okta's digest algorithm is not known")
		}
		return recognised(fmt.Sprintf("$pbkdf2-%s$%d$%s$%s", algorithm, h.IterationCount, unpad(h.Salt), unpad(h.Value)))
	case "SHA-512", "SHA-256", "SHA-1", "MD5":
		order := map[string]string{"PREFIX": "sp", "POSTFIX": "ps"}[h.SaltOrder]
		if h.Salt == "" {
			order = "p"
		}
		salt, err1 := base64.StdEncoding.DecodeString(h.Salt)
		sum, err2 := base64.StdEncoding.DecodeString(h.Value)
		if err1 != nil || err2 != nil || order == "" {
			return "", malformed("")
		}
		return FromDigest(strings.ToLower(strings.ReplaceAll(h.Algorithm, "-", "")), order, 1, salt, sum)
	}
	return "", refuse(ErrUnsupported, "", "Okta's algorithm is not known")
}
