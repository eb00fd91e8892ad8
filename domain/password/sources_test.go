package password

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const (
	golden     = "Migrate-Me-42"
	s16        = "c3ludGhldGljLXNhbHQxNg=="
	fbKey      = "c3ludGhldGljLXNpZ25lcnN5bnRoZXRpYy1zaWduZXJzeW50aGV0aWMtc2lnbmVyc3ludGhldGljLXNpZ25lcg=="
	fbSum      = "ROuR/OQf3pmx0AZ4KHrEqs9JoEuMr6wnHeHhYnZPPzzfvrqHOanFPBROLf+DaAIFHHMcdEazM88GPUDNX7jW5g=="
	fbSalt     = "ZmJzYWx0MA=="
	plainHash  = "$2a$10$LY3TRSJiUMhvcKc3cZKsXenFtNih/KMt4SNN41/QAxxfQFX8wIGyq"
	deviseHash = "$2a$10$AfvyXJACBoJAd.2sfPz7ouoPDdExvK/2x8IAMVBl01t/0lDpITuUC" // pepper pep-1
)

func fbProject() Firebase {
	return Firebase{SignerKey: field{fbKey, b64}.bytes(), SaltSeparator: Key{7}, Rounds: 8, MemCost: 14}
}

// TestSources: each source's own fields become an encoding that verifies the
// golden password and no other.
func TestSources(t *testing.T) {
	secrets := Secrets{}
	verified := map[string]bool{} // several spellings become the same encoding
	for _, c := range []struct {
		name, format string
		make         func() (string, error)
	}{
		{"Keycloak argon2", "argon2id", func() (string, error) {
			return FromKeycloak(`{"value":"pHGXaw/zOIsCWDp0ELKeUTUOooQFG5L6LttmlWh/CK4=","salt":"c3ludGhldGljLXNhbHQxNg==","additionalParameters":{}}`,
				`{"hashIterations":5,"algorithm":"argon2","additionalParameters":{"hashLength":["32"],"memory":["7168"],"type":["id"],"version":["1.3"],"parallelism":["1"]}}`)
		}},
		{"Keycloak argon2, version 1.0", "argon2id", func() (string, error) {
			return FromKeycloak(`{"value":"YUXnDJgcHUyes+xEt6RFDxkfJSiamI+h9NB3cx+C/qg=","salt":"c3ludGhldGljLXNhbHQxNg=="}`,
				`{"hashIterations":3,"algorithm":"argon2","additionalParameters":{"memory":["256"],"type":["id"],"version":["1.0"],"parallelism":["2"]}}`)
		}},
		{"Keycloak pbkdf2-sha512", "pbkdf2-sha512", func() (string, error) {
			return FromKeycloak(`{"value":"BexsTDh4a6oxKMIufk2MtbXXx67lTM6edDfQ5rt88O2kJlQWTxXan9XE2vNrvU3zHYEFgevybW6SA+xFnOLlKQ==","salt":"c3ludGhldGljLXNhbHQxNg=="}`,
				`{"hashIterations":210000,"algorithm":"pbkdf2-sha512","additionalParameters":{}}`)
		}},
		{"Keycloak pbkdf2-sha256, 64 bytes", "pbkdf2-sha256", func() (string, error) {
			return FromKeycloakFlat("pbkdf2-sha256", 27500, s16, "lG7xgBD7iYcICDff1AHC4OWpNUWiI41udHWmslhjAM2XjMj8hle5ikbZNG8MifgoYYEr0ycwV8UtAQXKdItc8A==")
		}},
		{"Firebase", "firebase-scrypt", func() (string, error) {
			f := fbProject()
			return FromFirebase(f, secrets.Keep("job", Secret{Firebase: &f}), fbSalt, fbSum)
		}},
		{"Firebase, URL-safe", "firebase-scrypt", func() (string, error) {
			return FromFirebase(fbProject(), "job", fbSalt, strings.NewReplacer("+", "-", "/", "_").Replace(fbSum))
		}},
		{"Firebase by SuperTokens", "firebase-scrypt", func() (string, error) {
			f := fbProject()
			return Bind("$f_scrypt$"+fbSum+"$"+fbSalt+"$m=14$r=8$s=Bw==", "job", Secret{Firebase: &f})
		}},
		{"Firebase by Kratos", "firebase-scrypt", func() (string, error) {
			return FromKratos("$firescrypt$ln=14,r=8,p=1$"+fbSalt+"$"+fbSum+"$Bw==$"+fbKey, secrets, "job")
		}},
		{"Firebase by Supabase", "firebase-scrypt", func() (string, error) {
			return Lift("$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk="+fbKey+"$"+fbSalt+"$"+fbSum, secrets, "job")
		}},
		{"Firebase by ZITADEL", "firebase-scrypt", func() (string, error) {
			return Lift("$firebasescrypt$ln=14,r=8$"+fbSalt+"$"+fbSum+"$Bw==$"+fbKey, secrets, "job")
		}},
		{"Firebase by Clerk", "firebase-scrypt", func() (string, error) {
			return FromClerk("scrypt_firebase", fbSum+"$"+fbSalt+"$"+fbKey+"$Bw==$8$14", secrets, "job")
		}},
		{"Devise", "bcrypt-peppered", func() (string, error) {
			secret := Secret{Pepper: &Pepper{Key: Key("pep-1"), How: PepperSuffix}}
			return Bind(deviseHash, secrets.Keep("devise", secret), secret)
		}},
		{"Clerk bcrypt_peppered", "bcrypt-peppered", func() (string, error) {
			return FromClerk("bcrypt_peppered", deviseHash+"$pep-1", secrets, "job")
		}},
		{"Clerk bcrypt", "bcrypt", func() (string, error) { return FromClerk("bcrypt", plainHash, secrets, "job") }},
		{"Clerk sha256", "digest-sha256", func() (string, error) {
			return FromClerk("sha256", "2d199cc1f209811ca36be51c5d94bc91710d6a4ec13807a2943aee1292269abb", secrets, "job")
		}},
		{"Clerk sha256_salted, salt behind", "digest-sha256", func() (string, error) {
			return FromClerk("sha256_salted", "synSALT1$0564d10e24fb78dad7723c8e30caaf4f5b804e30ecf0653f11bff2da05ae947a", secrets, "job")
		}},
		{"Clerk sha256_salted, salt in front", "digest-sha256", func() (string, error) {
			return FromClerk("sha256_salted", "synSALT1$13c8c8bc8b37fd91539b0a3be12a04da5403f05b4c1b8da3f2f65284a1ec7f58", secrets, "job")
		}},
		{"Clerk md5_salted, salt in front", "digest-md5", func() (string, error) {
			return FromClerk("md5_salted", "synSALT1$be15ecc0d68cfed7076545f2d374f485", secrets, "job")
		}},
		{"Clerk md5_salted, salt behind", "digest-md5", func() (string, error) {
			return FromClerk("md5_salted", "synSALT1$9a5f3084331e681b7d47fea43f616399", secrets, "job")
		}},
		{"Clerk pbkdf2_sha1, salt as text", "pbkdf2-sha1", func() (string, error) {
			return FromClerk("pbkdf2_sha1", "pbkdf2_sha1$1000$synSALT1$716b496b776187eec000d1e06d1ffbe57ac3d10f063409238b41d05fd9330aee", secrets, "job")
		}},
		{"Clerk pbkdf2_sha1, salt in hexadecimal", "pbkdf2-sha1", func() (string, error) {
			return FromClerk("pbkdf2_sha1", "pbkdf2_sha1$1000$73796e7468657469632d73616c743136$66fecbad76e5d2ee437e39b2eb7c1d0646a4e38d$20", secrets, "job")
		}},
		{"Clerk pbkdf2_sha256", "pbkdf2-sha256", func() (string, error) {
			return FromClerk("pbkdf2_sha256", "pbkdf2_sha256$1000$"+s16+"$QENPEOZ9s7xo3ru9gz0GHDytmHoELNHDzDN1Tu/OQQg=", secrets, "job")
		}},
		{"Clerk pbkdf2_sha256_django", "django-pbkdf2-sha256", func() (string, error) {
			return FromClerk("pbkdf2_sha256_django", "pbkdf2_sha256$1000$85S05VdP7KLw$6TDW/ysWDcZYnpbMu8wInB9Easnrn6RW/3iXB3qw94s=", secrets, "job")
		}},
		{"Clerk pbkdf2_sha512", "pbkdf2-sha512", func() (string, error) {
			return FromClerk("pbkdf2_sha512", "pbkdf2_sha512$1000$synSALT1$bfff37ae121624a92a8f36a13bb0f53745ec0cb5951a3122efbba410f0e1822e0516ca87beb292daa53286e4ec296c21d8201b3ac706409cce10d3d39ef77a07", secrets, "job")
		}},
		{"Clerk pbkdf2_sha512_hex", "pbkdf2-sha512", func() (string, error) {
			return FromClerk("pbkdf2_sha512_hex", "pbkdf2_sha512_hex$1000$73796e7468657469632d73616c743136$ebb0d6c3fd789effd6e397890c01a79f1e6bfcb32520fbcf05238fb275880e2dce7396eec1a7f98161948ef7fdbf7fec922c9dc6254a99bee993e3dcb69a0fb9", secrets, "job")
		}},
		{"Clerk sha512_symfony", "digest-sha512", func() (string, error) {
			return FromClerk("sha512_symfony", "sha512_symfony$5000$synSALT1$4z5EBMiMuq+yWLq5wInn+W3F6SHAqCTlgzHZISM5QfHhY340QespdpOotZBmYR5aeBMfPhKOj8n9HcHls3jzmA==", secrets, "job")
		}},
		{"Clerk scrypt_werkzeug", "werkzeug-scrypt", func() (string, error) {
			return FromClerk("scrypt_werkzeug", "$scrypt:1024:8:1$synSALT$c014d3c36d97023dc4d21a3cb6d34e0cb408f0683d120c023e0dfff280c94d5b75c3aa827c0e43318c617b110bc712bba2718c05360a85228fd75c196b2aa3cc", secrets, "job")
		}},
		{"Clerk ldap_ssha", "ldap-ssha", func() (string, error) {
			return FromClerk("ldap_ssha", "Q5TmBD1+Nhhzvb+XrBNL/+d7ZDVzYWx0U0FMVA==", secrets, "job")
		}},
		{"Clerk md5_phpass", "phpass", func() (string, error) {
			return FromClerk("md5_phpass", "$P$BabcdEFGHbOUTjXpb277imTU/sbw2s1", secrets, "job")
		}},
		{"Clerk hmac_sha256_utf16_b64", "hmac-sha256-utf16", func() (string, error) {
			return FromClerk("hmac_sha256_utf16_b64", s16+"$9chiH1pkA3yeaaDnc8Oks8q1BEl4Y4Zi2pICIyr1nnw=", secrets, "job")
		}},
		{"Clerk hmac_sha256_utf16_b64, the other way round", "hmac-sha256-utf16", func() (string, error) {
			return FromClerk("hmac_sha256_utf16_b64", "9chiH1pkA3yeaaDnc8Oks8q1BEl4Y4Zi2pICIyr1nnw=$"+s16, secrets, "job")
		}},
		{"FusionAuth bcrypt", "bcrypt", func() (string, error) {
			return FromFusionAuth("bcrypt", 10, plainHash[7:29], plainHash[29:])
		}},
		{"FusionAuth salted-md5", "digest-md5", func() (string, error) {
			return FromFusionAuth("salted-md5", 20000, s16, "hy+UTXo+UUQ6P9hMRBipXQ==")
		}},
		{"FusionAuth salted-sha256", "digest-sha256", func() (string, error) {
			return FromFusionAuth("salted-sha256", 20000, s16, "ricjykAM67EoGfHAKTjxN5gBGT6MrdKoLLQsnOWejyQ=")
		}},
		{"FusionAuth salted-hmac-sha256", "hmac-sha256", func() (string, error) {
			return FromFusionAuth("salted-hmac-sha256", 1, s16, "sEzYJEjY3vTbyFL/w7iNMLcaCUubTaEuq8V+CiytIeY=")
		}},
		{"FusionAuth salted-pbkdf2-hmac-sha256", "pbkdf2-sha256", func() (string, error) {
			return FromFusionAuth("salted-pbkdf2-hmac-sha256", 24000, s16, "cnuqTc4PIQp7j6gzUhpW2Rs1hpNvOfrRcvBf/RL+13A=")
		}},
		{"FusionAuth salted-pbkdf2-hmac-sha256-512", "pbkdf2-sha256", func() (string, error) {
			return FromFusionAuth("salted-pbkdf2-hmac-sha256-512", 24000, s16, "cnuqTc4PIQp7j6gzUhpW2Rs1hpNvOfrRcvBf/RL+13DMQH+Hc7Qke7iK5TZ6qQlLAuy8WC/EfhWEawb5LJMW8w==")
		}},
		{"FusionAuth salted-pbkdf2-hmac-sha512-512", "pbkdf2-sha512", func() (string, error) {
			return FromFusionAuth("salted-pbkdf2-hmac-sha512-512", 24000, s16, "V38eVDQAq/pbKrSXaP+AuSTZliFnc9h7dYHuCQsAeZ8dmxO7MKy6F1q2f5Et1NwSmXm0MbGhXUpY7kO4IfdWQA==")
		}},
		{"FusionAuth phpass-md5", "digest-md5", func() (string, error) {
			return FromFusionAuth("phpass-md5", 2048, "synSALT1", "7IWuC7ioI2Hsn/1vN8MQE0")
		}},
		{"FusionAuth phpass-sha512", "digest-sha512", func() (string, error) {
			return FromFusionAuth("phpass-sha512", 2048, "synSALT1", "WlIE38drkrVeU.L.tWt5lXZ0pjkKpnh4iBcDDWTXyBabmErbYv9.Um1IXPVDgLKm5pbLifGkHCT4kbK/slgz40")
		}},
		{"FusionAuth phpass-sha512, shortened", "digest-sha512", func() (string, error) {
			return FromFusionAuth("phpass-sha512", 2048, "synSALT1", "WlIE38drkrVeU.L.tWt5lXZ0pjkKpnh4iBcDDWTXyB4")
		}},
		{"Okta bcrypt", "bcrypt", func() (string, error) {
			return FromOkta(OktaHash{Algorithm: "BCRYPT", WorkFactor: 10, Salt: plainHash[7:29], Value: plainHash[29:]})
		}},
		{"Okta SHA-512, prefix", "digest-sha512", func() (string, error) {
			return FromOkta(OktaHash{Algorithm: "SHA-512", Salt: s16, SaltOrder: "PREFIX", Value: "6LO/fWRkJwuMBDcQRkH3/BsLNQ1A1mqZG3pGaFVjTZTdzY3T6zAUkYzvgSYoJQSOJIetRs3OtfPxvNewSPLIOA=="})
		}},
		{"Okta SHA-256, postfix", "digest-sha256", func() (string, error) {
			return FromOkta(OktaHash{Algorithm: "SHA-256", Salt: s16, SaltOrder: "POSTFIX", Value: "8GYze6t6ridtcW6Y3Ju6bItaFbdS+/LsiyZrJDwZr8I="})
		}},
		{"Okta SHA-1", "digest-sha1", func() (string, error) {
			return FromOkta(OktaHash{Algorithm: "SHA-1", Value: "UUeKgQ3kb0JtSN5rJAOFGAyOj6Y="})
		}},
		{"Okta MD5", "digest-md5", func() (string, error) {
			return FromOkta(OktaHash{Algorithm: "MD5", Value: "1cmjesjoiELQv847aALdGQ=="})
		}},
		{"Okta PBKDF2", "pbkdf2-sha256", func() (string, error) {
			return FromOkta(OktaHash{Algorithm: "PBKDF2", DigestAlgorithm: "SHA256_HMAC", IterationCount: 1000, Salt: s16, Value: "QENPEOZ9s7xo3ru9gz0GHDytmHoELNHDzDN1Tu/OQQg="})
		}},
		{"Kratos scrypt", "scrypt", func() (string, error) {
			return FromKratos("$scrypt$ln=1024,r=8,p=1$c3ludGhldGljLXNhbHQxNg==$Sx52RtSTbPhkgumULloSnmP1vh9sTCAvK+1/6JJZsQA=", secrets, "job")
		}},
		{"Kratos scrypt with N=16", "scrypt", func() (string, error) {
			return FromKratos("$scrypt$ln=16,r=8,p=1$c3ludGhldGljLXNhbHQxNg==$aAOi3DMwTouqsK5xOhTWXlylBaPoqIBtxo48UDUN2Sk=", secrets, "job")
		}},
		{"Kratos bcrypt", "bcrypt", func() (string, error) { return FromKratos(plainHash, secrets, "job") }},
		{"ASP.NET", "aspnet-identity-v2", func() (string, error) {
			return FromASPNet(" AHN5bnRoZXRpYy1zYWx0MTZm/sutduXS7kN+ObLrfB0GRqTjjbWYsiwEJvpuxbG4VA==\n")
		}},
		{"Django", "django-bcrypt-sha256", func() (string, error) {
			return FromDjango("bcrypt_sha256$$2b$04$EVRAMsc9hFAuPV6BU3IjU.1rPU3kpFos34I83Kk.XQ/VBpt8U56Xi")
		}},
		{"LDAP", "ldap-ssha", func() (string, error) { return FromLDAP("{ssha}Q5TmBD1+Nhhzvb+XrBNL/+d7ZDVzYWx0U0FMVA==") }},
		{"SHA-1 in hexadecimal, named", "digest-sha1", func() (string, error) { return FromHex("sha1", "51478A810DE46F426D48DE6B240385180C8E8FA6") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			encoded, err := c.make()
			if err != nil {
				t.Fatal(err)
			}
			f, err := Recognise(encoded)
			if err != nil || f.Name != c.format {
				t.Fatalf("recognised as %q, %v; want %s: %s", f.Name, err, c.format, encoded)
			}
			if strings.Contains(encoded, "pep-1") || strings.Contains(encoded, fbKey[:20]) {
				t.Errorf("the encoding holds the project's secret: %s", encoded)
			}
			if verified[encoded] {
				return
			}
			verified[encoded] = true
			if ok, err := Verify(t.Context(), encoded, golden, secrets); !ok || err != nil {
				t.Errorf("Verify = %v, %v: %s", ok, err, encoded)
			}
			if d, _ := parse(encoded); d.memory() > 8<<20 {
				// Too dear to try again for each spelling; property_test.go does.
			} else if ok, err := Verify(t.Context(), encoded, golden+"x", secrets); ok || err != nil {
				t.Errorf("Verify of a wrong password = %v, %v: %s", ok, err, encoded)
			}
			if f.Secret != "" {
				if _, err := Verify(t.Context(), encoded, golden, nil); !errors.Is(err, ErrSecretMissing) {
					t.Errorf("Verify without the secret = %v, want ErrSecretMissing", err)
				}
			}
		})
	}
}

func TestSourcesRefuse(t *testing.T) {
	for _, c := range []struct {
		name string
		kind error
		make func() (string, error)
	}{
		{"Keycloak argon2d", ErrUnsupported, func() (string, error) {
			return FromKeycloak(`{"value":"pHGXaw/zOIsCWDp0ELKeUTUOooQFG5L6LttmlWh/CK4=","salt":"c3ludGhldGljLXNhbHQxNg=="}`, `{"hashIterations":5,"algorithm":"argon2","additionalParameters":{"memory":["7168"],"type":["d"]}}`)
		}},
		{"Keycloak, not JSON", ErrMalformed, func() (string, error) { return FromKeycloak("{", "{}") }},
		{"Keycloak, another algorithm", ErrUnsupported, func() (string, error) { return FromKeycloakFlat("hmac", 1, s16, s16) }},
		{"FusionAuth bomb", ErrTooCostly, func() (string, error) { return FromFusionAuth("salted-md5", 2_000_000_000, s16, s16) }},
		{"FusionAuth plugin", ErrUnsupported, func() (string, error) { return FromFusionAuth("my-scheme", 1, s16, s16) }},
		{"Clerk awscognito", ErrUnsupported, func() (string, error) { return FromClerk("awscognito", "awscognito#a#b#c", Secrets{}, "job") }},
		{"Okta without an order", ErrMalformed, func() (string, error) {
			return FromOkta(OktaHash{Algorithm: "MD5", Salt: s16, Value: "1cmjesjoiELQv847aALdGQ=="})
		}},
		{"Django without a password", ErrUnusable, func() (string, error) { return FromDjango("!") }},
		{"LDAP plain text", ErrPlaintext, func() (string, error) { return FromLDAP("secret") }},
		{"Firebase bomb", ErrTooCostly, func() (string, error) {
			return FromFirebase(Firebase{Rounds: 8, MemCost: 20}, "job", fbSalt, fbSum)
		}},
		{"pepper without a key", ErrMalformed, func() (string, error) { return Bind(plainHash, "job", Secret{Pepper: &Pepper{How: PepperSuffix}}) }},
		{"pepper applied in an unknown way", ErrUnsupported, func() (string, error) {
			return Bind(plainHash, "job", Secret{Pepper: &Pepper{Key: Key("x"), How: "rot13"}})
		}},
		{"no secret", ErrMalformed, func() (string, error) { return Bind(plainHash, "job", Secret{}) }},
		{"a reference that cannot be one", ErrMalformed, func() (string, error) {
			return Bind(plainHash, "a b", Secret{Pepper: &Pepper{Key: Key("x"), How: PepperSuffix}})
		}},
	} {
		if got, err := c.make(); !errors.Is(err, c.kind) || got != "" {
			t.Errorf("%s: %q, %v; want %v", c.name, got, err, c.kind)
		}
	}
}

func TestPeppers(t *testing.T) {
	// Each inner hash is MD5 of what the way of peppering yields.
	for how, inner := range map[PepperHow]string{
		PepperSuffix:           "5c0208c12af02a7413bc7052cbb6431d",
		PepperPrefix:           "0a51874a0d924f643783f97133bbaa8b",
		PepperHMACSHA256Hex:    "38867370cc0914bd73fd2203c57fc4f3",
		PepperHMACSHA256Base64: "eb22d5a0240635e9e2ca5259f001e1ab",
		PepperHMACSHA512Hex:    "ea52ad8b2fe56ab58245a173509d45af",
		PepperHMACSHA512Base64: "4fa6fbade1914a7041ede42314151b4b",
	} {
		secret := Secret{Pepper: &Pepper{Key: Key("pep-1"), How: how}}
		encoded, err := Bind(inner, "job", secret)
		if err != nil {
			t.Fatal(err)
		}
		if f, err := Recognise(encoded); err != nil || f.Name != "peppered" || f.Secret != "job" || !f.Weak() {
			t.Errorf("%s: %+v, %v", how, f, err)
		}
		for pw, want := range map[string]bool{golden: true, golden + "1": false} {
			if ok, err := Verify(t.Context(), encoded, pw, Secrets{"job": secret}); ok != want || err != nil {
				t.Errorf("%s of %s: %v, %v; want %v", how, pw, ok, err, want)
			}
		}
	}
}

// TestSecretOfAnotherKind: a reference that names something else is as good as
// none.
func TestSecretOfAnotherKind(t *testing.T) {
	f := fbProject()
	short := f
	short.SignerKey = f.SignerKey[:32]
	pepper := Secret{Pepper: &Pepper{Key: Key("x"), How: PepperSuffix}}
	firebase := "$muster-firebase$job$ln=1,r=8$" + fbSalt + "$" + fbSum
	for _, c := range []struct {
		encoded string
		secret  Secret
	}{
		{firebase, pepper}, {firebase, Secret{}}, {firebase, Secret{Firebase: &short}},
		{"$muster-pepper$job$" + plainHash, Secret{Firebase: &f}}, {"$muster-pepper$job$" + plainHash, Secret{}},
	} {
		if _, err := Verify(t.Context(), c.encoded, golden, Secrets{"job": c.secret}); !errors.Is(err, ErrSecretMissing) {
			t.Errorf("%s: %v, want ErrSecretMissing", c.encoded, err)
		}
	}
}

// TestWordPressTrims: WordPress cuts blanks around a password before hashing.
func TestWordPressTrims(t *testing.T) {
	const encoded = "$wp$2y$10$IS1Wqg2tXWp46jhg82SKt.7ZU6BtRk29ZevJtashrhMhmRsgpsoDy"
	for pw, want := range map[string]bool{" \t" + golden + "\n ": true, golden[:7] + " " + golden[7:]: false} {
		if ok, err := Verify(t.Context(), encoded, pw, nil); ok != want || err != nil {
			t.Errorf("%q: %v, %v; want %v", pw, ok, err, want)
		}
	}
}

func TestKeepNamesSecrets(t *testing.T) {
	s := Secrets{}
	pepper := func(key string) Secret { return Secret{Pepper: &Pepper{Key: Key(key), How: PepperSuffix}} }
	f := fbProject()
	var got []string
	for _, secret := range []Secret{pepper("a"), pepper("b"), pepper("a"), {Firebase: &f}, pepper("b"), {Firebase: &f}} {
		got = append(got, s.Keep("job", secret))
	}
	if want := "[job job.2 job job.3 job.2 job.3]"; fmt.Sprint(got) != want {
		t.Errorf("references %v, want %s", got, want)
	}
}

// TestSecretsDoNotPrint: only JSON, which a job seals, holds the key.
func TestSecretsDoNotPrint(t *testing.T) {
	f := fbProject()
	f.SignerKey = Key("canary-canary-canary")
	secrets := Secrets{"fb": {Firebase: &f}, "pep": {Pepper: &Pepper{Key: Key("canary-pepper"), How: PepperSuffix}}}
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, nil))
	log.Info("x", "secrets", secrets, "one", secrets["fb"], "firebase", f, "pointer", &f, "pepper", *secrets["pep"].Pepper, "key", f.SignerKey)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		fmt.Fprintf(&out, verb+verb+verb+verb, secrets, f, *secrets["pep"].Pepper, f.SignerKey)
	}
	for _, canary := range []string{"canary", fmt.Sprintf("%x", "canary"), "Y2FuYXJ5", "99 97 110"} {
		if strings.Contains(out.String(), canary) {
			t.Errorf("printed %q: %s", canary, out.String())
		}
	}
	sealed, err := json.Marshal(secrets)
	if err != nil {
		t.Fatal(err)
	}
	var back Secrets
	if err := json.Unmarshal(sealed, &back); err != nil || !back["fb"].equal(secrets["fb"]) || !back["pep"].equal(secrets["pep"]) {
		t.Errorf("JSON does not bring the secrets back: %v", err)
	}
}

// TestErrorsHoldNoValues: nothing of an encoding gets into an error's text.
func TestErrorsHoldNoValues(t *testing.T) {
	const canary = "CANARYcanary0123"
	for _, v := range vectors(t) {
		for i := range v.encoded {
			_, err := Recognise(v.encoded[:i] + canary + v.encoded[i:])
			if err != nil && strings.Contains(err.Error(), canary) {
				t.Fatalf("%s: %v", v.format, err)
			}
		}
	}
	for _, f := range []func() (string, error){
		func() (string, error) { return FromKeycloakFlat(canary, 1, canary, canary) },
		func() (string, error) { return FromFusionAuth(canary, 1, canary, canary) },
		func() (string, error) { return FromClerk(canary, canary, Secrets{}, "job") },
		func() (string, error) { return FromOkta(OktaHash{Algorithm: canary}) },
		func() (string, error) { return FromHex(canary, canary) },
		func() (string, error) { return FromDigest(canary, canary, 1, nil, nil) },
		func() (string, error) { return FromLDAP(canary) },
	} {
		if _, err := f(); err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("error = %v", err)
		}
	}
}
