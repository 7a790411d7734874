package importer

import (
	"errors"
	"fmt"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"

	"github.com/rowhook/rowhook/internal/config"
)

// YAMLFault says what is wrong with a YAML file, and in which line; 0: it is not known.
type YAMLFault struct {
	Line    int
	Problem string
}

// ParseYAML parses a file of somebody else, in which keys may be repeated. It refuses values that are
// nested deeper than depth: the parser recurses, and its time grows with the square of the depth.
func ParseYAML(text string, depth int) (*ast.File, *YAMLFault) {
	tokens := lexer.Tokenize(text)
	if t := config.TooDeep(tokens, depth); t != nil {
		return nil, &YAMLFault{t.Position.Line, fmt.Sprintf("is nested more than %d levels deep", depth)}
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err == nil {
		return file, nil
	}
	fault := &YAMLFault{Problem: "this is not YAML: " + err.Error()}
	if se, ok := errors.AsType[*yaml.SyntaxError](err); ok {
		fault.Problem = "this is not YAML: " + se.Message
		if se.Token != nil {
			fault.Line = se.Token.Position.Line
		}
	}
	return nil, fault
}
