// Package jsontext has the pieces of JSON's grammar (RFC 8259) that the readers
// and writers of import lines share.
package jsontext

import "unicode/utf8"

// Number returns how long the number is that s begins with, or -1 when it
// begins with none: no leading zero, no bare sign or point. What follows the
// number is the caller's to judge.
func Number[T string | []byte](s T) int {
	i := 0
	at := func() byte {
		if i < len(s) {
			return s[i]
		}
		return 0
	}
	digits := func() bool {
		from := i
		for c := at(); '0' <= c && c <= '9'; c = at() {
			i++
		}
		return i > from
	}
	if at() == '-' {
		i++
	}
	if at() == '0' {
		i++
	} else if !digits() {
		return -1
	}
	if at() == '.' {
		i++
		if !digits() {
			return -1
		}
	}
	if c := at(); c == 'e' || c == 'E' {
		i++
		if c := at(); c == '+' || c == '-' {
			i++
		}
		if !digits() {
			return -1
		}
	}
	return i
}

// AppendString appends s as a JSON string. What is not UTF-8 becomes U+FFFD.
func AppendString(dst []byte, s string) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ':
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		case c < utf8.RuneSelf:
			dst = append(dst, c)
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
			continue
		}
		i++
	}
	return append(dst, '"')
}
