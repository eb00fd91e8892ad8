package password

import (
	"encoding/binary"
	"math/bits"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/blake2b"
)

// argon2Key derives a key with Argon2i or Argon2id. Version 19 is
// golang.org/x/crypto's; version 16, which old installations wrote, is ours.
func argon2Key(id bool, version int, pw, salt []byte, passes, memory uint32, lanes uint8, size uint32) []byte {
	switch {
	case version != 19:
		return argon2Old(id, version, pw, salt, passes, memory, uint32(lanes), size)
	case id:
		return argon2.IDKey(pw, salt, passes, memory, lanes, size)
	default:
		return argon2.Key(pw, salt, passes, memory, lanes, size)
	}
}

type argon2Block [128]uint64

// argon2Old is Argon2 by RFC 9106, section 3, one lane after the other, for
// any version: 16 differs from 19 only in that later passes overwrite a block
// instead of XORing into it.
func argon2Old(id bool, version int, pw, salt []byte, passes, memory, lanes, size uint32) []byte {
	kind := uint32(1)
	if id {
		kind = 2
	}
	le := binary.LittleEndian
	var seed []byte
	for _, v := range [...]uint32{lanes, size, memory, passes, uint32(version), kind} {
		seed = le.AppendUint32(seed, v)
	}
	for _, part := range [...][]byte{pw, salt, nil, nil} { // no secret, no associated data
		seed = append(le.AppendUint32(seed, uint32(len(part))), part...)
	}
	h0 := blake2b.Sum512(seed)

	segment := memory / (4 * lanes)
	width := 4 * segment // blocks in a lane
	total := width * lanes
	blocks := make([]argon2Block, total)
	for lane := range lanes {
		for i := range uint32(2) {
			in := le.AppendUint32(le.AppendUint32(h0[:64:64], i), lane)
			for j, b := 0, argon2Hash(in, 1024); j < 128; j++ {
				blocks[lane*width+i][j] = le.Uint64(b[8*j:])
			}
		}
	}
	for pass := range passes {
		for slice := range uint32(4) {
			for lane := range lanes {
				independent := !id || pass == 0 && slice < 2
				var in, addresses argon2Block
				in[0], in[1], in[2], in[3], in[4], in[5] = uint64(pass), uint64(lane), uint64(slice), uint64(total), uint64(passes), uint64(kind)
				first := uint32(0)
				if pass == 0 && slice == 0 {
					first = 2
				}
				for i := first; i < segment; i++ {
					if independent && (i == first || i%128 == 0) {
						in[6]++
						var zero, t argon2Block
						argon2Mix(&t, &zero, &in)
						argon2Mix(&addresses, &zero, &t)
					}
					at := slice*segment + i
					prev := &blocks[lane*width+(at+width-1)%width]
					random := prev[0]
					if independent {
						random = addresses[i%128]
					}
					ref := lane
					if pass > 0 || slice > 0 {
						ref = uint32(random>>32) % lanes
					}
					// The window of blocks that may be referred to.
					area, start := slice*segment, uint32(0)
					if pass > 0 {
						area, start = width-segment, (slice+1)%4*segment
					}
					if ref == lane {
						area += i - 1
					} else if i == 0 {
						area--
					}
					x := random & 0xffffffff
					back := uint64(area) * (x * x >> 32) >> 32
					chosen := &blocks[ref*width+(start+area-1-uint32(back))%width]

					cur := &blocks[lane*width+at]
					var t argon2Block
					argon2Mix(&t, prev, chosen)
					if pass > 0 && version >= 19 {
						for j := range t {
							t[j] ^= cur[j]
						}
					}
					*cur = t
				}
			}
		}
	}
	var last argon2Block
	for lane := range lanes {
		for j, v := range blocks[lane*width+width-1] {
			last[j] ^= v
		}
	}
	out := make([]byte, 0, 1024)
	for _, v := range last {
		out = le.AppendUint64(out, v)
	}
	return argon2Hash(out, size)
}

// argon2Hash is the variable-length hash H' of RFC 9106, section 3.3.
func argon2Hash(in []byte, size uint32) []byte {
	sized := append(binary.LittleEndian.AppendUint32(nil, size), in...)
	if size <= 64 {
		h, _ := blake2b.New(int(size), nil)
		h.Write(sized)
		return h.Sum(nil)
	}
	v := blake2b.Sum512(sized)
	var out []byte
	for size -= 32; size > 64; size -= 32 {
		out = append(out, v[:32]...)
		v = blake2b.Sum512(v[:])
	}
	out = append(out, v[:32]...)
	h, _ := blake2b.New(int(size), nil)
	h.Write(v[:])
	return h.Sum(out)
}

// argon2Mix is the compression function G of RFC 9106, section 3.5.
func argon2Mix(out, x, y *argon2Block) {
	var r, z argon2Block
	for i := range r {
		r[i] = x[i] ^ y[i]
	}
	z = r
	for i := 0; i < 128; i += 16 {
		argon2Permute(&z, [16]int{i, i + 1, i + 2, i + 3, i + 4, i + 5, i + 6, i + 7, i + 8, i + 9, i + 10, i + 11, i + 12, i + 13, i + 14, i + 15})
	}
	for i := 0; i < 16; i += 2 {
		argon2Permute(&z, [16]int{i, i + 1, i + 16, i + 17, i + 32, i + 33, i + 48, i + 49, i + 64, i + 65, i + 80, i + 81, i + 96, i + 97, i + 112, i + 113})
	}
	for i := range z {
		out[i] = z[i] ^ r[i]
	}
}

// argon2Permute is the permutation P of RFC 9106, section 3.6, on the words of
// b at the places v.
func argon2Permute(b *argon2Block, v [16]int) {
	gb := func(i, j, k, l int) {
		x, y, z, w := b[v[i]], b[v[j]], b[v[k]], b[v[l]]
		mul := func(p, q uint64) uint64 { return p + q + 2*uint64(uint32(p))*uint64(uint32(q)) }
		x = mul(x, y)
		w = bits.RotateLeft64(w^x, -32)
		z = mul(z, w)
		y = bits.RotateLeft64(y^z, -24)
		x = mul(x, y)
		w = bits.RotateLeft64(w^x, -16)
		z = mul(z, w)
		y = bits.RotateLeft64(y^z, -63)
		b[v[i]], b[v[j]], b[v[k]], b[v[l]] = x, y, z, w
	}
	gb(0, 4, 8, 12)
	gb(1, 5, 9, 13)
	gb(2, 6, 10, 14)
	gb(3, 7, 11, 15)
	gb(0, 5, 10, 15)
	gb(1, 6, 11, 12)
	gb(2, 7, 8, 13)
	gb(3, 4, 9, 14)
}
