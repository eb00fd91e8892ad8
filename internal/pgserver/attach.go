package pgserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Running returns the URL, by 127.0.0.1, of the server that another process
// runs on dataDir, for commands beside the running service. It does not check
// that the server answers.
func Running(dataDir string) (string, error) {
	port, err := os.ReadFile(filepath.Join(dataDir, "postgres.port"))
	if err != nil {
		return "", fmt.Errorf("pgserver: no server runs on %s: %w", dataDir, err)
	}
	password, err := os.ReadFile(filepath.Join(dataDir, "postgres.password"))
	if err != nil {
		return "", fmt.Errorf("pgserver: no server runs on %s: %w", dataDir, err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(port)))
	if err != nil {
		return "", errors.New("pgserver: postgres.port holds no port")
	}
	s := Server{port: n, password: strings.TrimSpace(string(password))}
	return s.TCPURL(), nil
}
