package identity

import (
	"bytes"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/lsnode/lsnode/cluster/internal/durable"
)

// ErrOtherCluster is wrapped when a data dir that belongs to one cluster is
// asked to belong to another.
var ErrOtherCluster = errors.New("the data dir belongs to another cluster")

const (
	fileName    = "identity.json"
	fileVersion = 1
	maxFileSize = 64 << 10
)

// Identity is who a data dir is. Its methods must not be called by several
// goroutines at once.
type Identity struct {
	path string
	file file
}

// file is the format of identity.json.
type file struct {
	Version int       `json:"version"`
	Node    string    `json:"node"`
	Cluster string    `json:"cluster,omitempty"`
	Created time.Time `json:"created"`
}

// Load reads the identity of a data dir, or makes it in one that has none. The
// caller holds the [Lock]. On return the identity is durable.
func Load(dataDir string) (*Identity, error) {
	path := filepath.Join(dataDir, fileName)
	data, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return create(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	id := &Identity{path: path}
	if id.file, err = parse(data); err != nil {
		return nil, fmt.Errorf("read identity %s: %w", path, err)
	}
	return id, nil
}

func create(path string) (*Identity, error) {
	id := &Identity{path: path, file: file{Version: fileVersion, Node: NewID(), Created: time.Now().UTC()}}
	if err := durable.WriteJSON(path, id.file, 0o600); err != nil {
		return nil, fmt.Errorf("make identity: %w", err)
	}
	return id, nil
}

// Node returns the node's ID.
func (id *Identity) Node() string { return id.file.Node }

// Cluster returns the ID of the cluster that the data dir belongs to, or "" if
// it belongs to none yet.
func (id *Identity) Cluster() string { return id.file.Cluster }

// SetCluster records the cluster that the data dir belongs to from now on;
// durable on return. Recording the same again does nothing; another one is
// refused with [ErrOtherCluster].
func (id *Identity) SetCluster(cluster string) error {
	if !ValidID(cluster) {
		return fmt.Errorf("set cluster: %q is not an ID", cluster)
	}
	if id.file.Cluster == cluster {
		return nil
	}
	if id.file.Cluster != "" {
		return fmt.Errorf("set cluster to %s: %w, %s", cluster, ErrOtherCluster, id.file.Cluster)
	}
	next := id.file
	next.Cluster = cluster
	if err := durable.WriteJSON(id.path, next, 0o600); err != nil {
		return fmt.Errorf("set cluster: %w", err)
	}
	id.file = next
	return nil
}

// ClearCluster makes the data dir belong to no cluster; durable on return.
func (id *Identity) ClearCluster() error {
	next := id.file
	next.Cluster = ""
	if err := durable.WriteJSON(id.path, next, 0o600); err != nil {
		return fmt.Errorf("clear cluster: %w", err)
	}
	id.file = next
	return nil
}

var (
	idEncoding = base32.HexEncoding.WithPadding(base32.NoPadding)
	idPattern  = regexp.MustCompile(`^[0-9a-v]{26}$`)
)

// NewID returns a new random ID of 128 bits, for a node or a cluster: 26
// letters and digits.
func NewID() string {
	b := make([]byte, 16)
	rand.Read(b) // never returns an error
	return strings.ToLower(idEncoding.EncodeToString(b))
}

// ValidID tells whether s has the form that [NewID] makes.
func ValidID(s string) bool { return idPattern.MatchString(s) }

// parse decodes identity.json. Unknown fields of the same version are refused:
// a later version that adds one must say so, since writing the file back would
// lose it.
func parse(data []byte) (file, error) {
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return file{}, err
	}
	if version.Version != fileVersion {
		return file{}, fmt.Errorf("version is %d, this program knows %d", version.Version, fileVersion)
	}
	var f file
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&f); err != nil {
		return file{}, err
	}
	if !ValidID(f.Node) {
		return file{}, fmt.Errorf("%q is not a node ID", f.Node)
	}
	if f.Cluster != "" && !ValidID(f.Cluster) {
		return file{}, fmt.Errorf("%q is not a cluster ID", f.Cluster)
	}
	return f, nil
}

func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFileSize {
		return nil, fmt.Errorf("read %s: %d bytes is more than it can have", path, info.Size())
	}
	return os.ReadFile(path)
}
