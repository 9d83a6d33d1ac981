package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v4"
)

// maxConfigFile bounds the file named by --config.
const maxConfigFile = 1 << 20

// settings gives flags that are not on the command line their values: from the
// environment, else from the file. It implements [kong.Resolver].
type settings struct {
	environ []string // "KEY=value"
	path    string   // of the file; empty: none
	file    map[string]fileValue
}

// fileValue is the value of one key of the file.
type fileValue struct {
	line   int
	values []string // one, unless list
	list   bool
}

// envName is what a flag is called in the environment.
func envName(flag string) string {
	return "LSNODE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// configurable tells whether a flag may come from elsewhere than the command
// line.
func configurable(flag *kong.Flag) bool { return flag.Name != "help" }

// env returns a variable's value; an empty one is as good as none.
func (s *settings) env(name string) string {
	for _, entry := range slices.Backward(s.environ) {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// load reads the file that --config or LSNODE_CONFIG names, if any, and refuses
// keys that are no flag of any command.
func (s *settings) load(args []string, model *kong.Application) error {
	s.path = configPath(args)
	if s.path == "" {
		s.path = s.env(envName("config"))
	}
	if s.path == "" {
		return nil
	}
	f, err := os.Open(s.path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	body, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("read configuration %s: %w", s.path, err)
	}
	if len(body) > maxConfigFile {
		return fmt.Errorf("read configuration %s: it is larger than %d bytes", s.path, maxConfigFile)
	}
	s.file, err = parseFile(s.path, body, flagNames(model))
	return err
}

// configPath finds --config before the command line is parsed: what the file
// says is needed by then.
func configPath(args []string) string {
	path := ""
	for i, arg := range args {
		if arg == "--" {
			break
		}
		if value, ok := strings.CutPrefix(arg, "--config="); ok {
			path = value
		} else if arg == "--config" && i+1 < len(args) {
			path = args[i+1]
		}
	}
	return path
}

// flagNames returns the names that a file may use as keys.
func flagNames(model *kong.Application) []string {
	var names []string
	var walk func(n *kong.Node)
	walk = func(n *kong.Node) {
		for _, flag := range n.Flags {
			if configurable(flag) && flag.Name != "config" {
				names = append(names, flag.Name)
			}
		}
		for _, child := range n.Children {
			walk(child)
		}
	}
	walk(model.Node)
	slices.Sort(names)
	return slices.Compact(names)
}

// parseFile reads one YAML mapping from keys to scalars or lists of scalars.
// Each error names the file and the line.
func parseFile(path string, body []byte, known []string) (map[string]fileValue, error) {
	if len(strings.TrimSpace(string(body))) == 0 {
		return nil, nil
	}
	var doc yaml.Node
	if err := yaml.Load(body, &doc); err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	root := &doc
	if root.Kind == yaml.DocumentNode && len(root.Content) == 1 {
		root = root.Content[0]
	}
	if root.Kind == 0 || root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil // nothing but comments
	}
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: want lines of the form KEY: VALUE", path, root.Line)
	}
	values := map[string]fileValue{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if !slices.Contains(known, key.Value) {
			return nil, fmt.Errorf("%s:%d: unknown key %q%s", path, key.Line, key.Value, hint(key.Value, known))
		}
		if first, ok := values[key.Value]; ok {
			return nil, fmt.Errorf("%s:%d: key %q is given twice, first in line %d", path, key.Line, key.Value, first.line)
		}
		v, err := parseValue(value)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %s: %w", path, key.Line, key.Value, err)
		}
		v.line = key.Line
		values[key.Value] = v
	}
	return values, nil
}

func parseValue(n *yaml.Node) (fileValue, error) {
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return fileValue{}, errors.New("value is missing")
	case n.Kind == yaml.ScalarNode:
		return fileValue{values: []string{n.Value}}, nil
	case n.Kind == yaml.SequenceNode:
		v := fileValue{list: true}
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
				return fileValue{}, fmt.Errorf("line %d: want a plain value", item.Line)
			}
			v.values = append(v.values, item.Value)
		}
		return v, nil
	default:
		return fileValue{}, errors.New("want a plain value or a list of such")
	}
}

// Validate implements [kong.Resolver].
func (s *settings) Validate(*kong.Application) error { return nil }

// Resolve implements [kong.Resolver]: it returns a string, or a list of strings
// as []any, or nil when neither the environment nor the file says anything.
func (s *settings) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if !configurable(flag) {
		return nil, nil
	}
	list := flag.Target.Kind() == reflect.Slice
	if value := s.env(envName(flag.Name)); value != "" {
		if list {
			return anys(strings.Split(value, ",")), nil
		}
		return value, nil
	}
	v, ok := s.file[flag.Name]
	switch {
	case !ok:
		return nil, nil
	case list:
		return anys(v.values), nil
	case v.list:
		return nil, fmt.Errorf("%s:%d: %s: want one value, not a list", s.path, v.line, flag.Name)
	default:
		return v.values[0], nil
	}
}

func anys(values []string) []any {
	out := make([]any, len(values))
	for i, v := range values {
		out[i] = v
	}
	return out
}

// misspelt returns a warning for each variable that looks like a setting and is
// none. It is no more than a warning: others put variables of this form into the
// environment too, Kubernetes for one.
func (s *settings) misspelt(model *kong.Application) []string {
	known := append(flagNames(model), "config")
	var warnings []string
	for _, entry := range s.environ {
		name, _, _ := strings.Cut(entry, "=")
		flag, ours := strings.CutPrefix(name, envName(""))
		flag = strings.ToLower(strings.ReplaceAll(flag, "_", "-"))
		if !ours || slices.Contains(known, flag) {
			continue
		}
		if near := nearest(flag, known); near != "" {
			warnings = append(warnings, fmt.Sprintf("%s is set and means nothing; did you mean %s?", name, envName(near)))
		}
	}
	return warnings
}
