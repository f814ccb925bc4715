package dir

import (
	"strings"
	"unicode/utf8"
)

// names turns the names of objects into paths of files and back.
//
// A path is the name itself, as far as file names can hold it: a directory of objects
// looks like the bucket it might be copied to. What a file name can't hold is escaped,
// one name having one path and one path at most one name:
//
//   - "%" is "%25": the byte in lower case hexadecimal. So no path has a "%" before anything but such a pair of digits
//     or "+", and the store's own files in the root, "%tmp" and "%folded", are nobody's path.
//   - An element that is longer than a file name may be is cut, between characters, into folders that end in "%+": the
//     element goes on in the folder.
//   - Where the file system takes two names for one (A and a, or é and é), everything but lower case letters, digits, "-",
//     "_" and dots inside is escaped, too. That is what folded means.
type names struct {
	folded bool
}

const (
	goesOn = "%+"

	// longestElement leaves room for goesOn in the 255 bytes, or characters, that file
	// systems allow.
	longestElement = 240
)

// path returns the path of an object, or of a folder of objects, relative to the root and
// with slashes.
func (n names) path(name string) string {
	if n.verbatim(name) {
		return name
	}
	var path strings.Builder
	written := 0 // bytes of this file name
	for i := 0; i < len(name); {
		_, size := utf8.DecodeRuneInString(name[i:])
		character := name[i : i+size]
		i += size
		if character == "/" {
			path.WriteByte('/')
			written = 0
			continue
		}
		if n.escapes(character, i == len(name) || name[i] == '/') {
			character = escape(character)
		}
		if written+len(character) > longestElement {
			path.WriteString(goesOn + "/")
			written = 0
		}
		path.WriteString(character)
		written += len(character)
	}
	return path.String()
}

// verbatim reports whether the name is its own path, as nearly every name is.
func (n names) verbatim(name string) bool {
	if n.folded || strings.IndexByte(name, '%') >= 0 {
		return false
	}
	for element := range strings.SplitSeq(name, "/") {
		if len(element) > longestElement {
			return false
		}
	}
	return true
}

// escapes reports whether a file name can't hold a character, which is the last of its
// element or not.
func (n names) escapes(character string, last bool) bool {
	c := character[0]
	switch {
	case !n.folded:
		return c == '%'
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		return false
	default:
		return c != '.' || last
	}
}

func escape(bytes string) string {
	const digits = "0123456789abcdef"
	escaped := make([]byte, 0, 3*len(bytes))
	for _, c := range []byte(bytes) {
		escaped = append(escaped, '%', digits[c>>4], digits[c&15])
	}
	return string(escaped)
}

// piece returns what a file name says of an element of a name: all of it, or with more
// only the beginning, which goes on in the folder of that name. It does not tell whether
// path would write it so.
func piece(file string) (text string, more, ok bool) {
	file, more = strings.CutSuffix(file, goesOn)
	if file == "" {
		return "", false, false
	}
	if strings.IndexByte(file, '%') < 0 {
		return file, more, true
	}
	var decoded strings.Builder
	for i := 0; i < len(file); i++ {
		if file[i] != '%' {
			decoded.WriteByte(file[i])
			continue
		}
		if i+2 >= len(file) {
			return "", false, false
		}
		high, low := digit(file[i+1]), digit(file[i+2])
		if high < 0 || low < 0 {
			return "", false, false
		}
		decoded.WriteByte(byte(high<<4 | low))
		i += 2
	}
	return decoded.String(), more, true
}

func digit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	default:
		return -1
	}
}
