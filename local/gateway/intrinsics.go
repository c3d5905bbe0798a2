package gateway

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// followRefs puts the parameters' defaults where the tree refers to them, and writes the long form of every other intrinsic
// ({"Fn::Sub": …}) as the short one (!Sub …), so that reading it as anything else cannot go unnoticed.
func followRefs(root *yaml.Node) {
	var doc struct {
		Parameters map[string]struct {
			Default yaml.Node `yaml:"Default"`
		} `yaml:"Parameters"`
	}
	root.Decode(&doc) // an error comes again when the parts are read
	var follow func(n *yaml.Node)
	follow = func(n *yaml.Node) {
		if n.Kind == yaml.MappingNode && len(n.Content) == 2 {
			if name := n.Content[0].Value; name == "Ref" || strings.HasPrefix(name, "Fn::") {
				*n = *n.Content[1]
				n.Tag = "!" + strings.TrimPrefix(name, "Fn::")
			}
		}
		if def := doc.Parameters[n.Value].Default; n.Tag == "!Ref" && !def.IsZero() {
			n.Tag, n.Style, n.Value = "", 0, def.Value // '300' is a number where one is wanted
		}
		for _, child := range n.Content {
			follow(child)
		}
	}
	follow(root)
}

// text is a scalar that holds no intrinsic; numbers keep their spelling.
type text string

func (t *text) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!") {
		return fmt.Errorf("line %d: %s %s is not understood here, only a plain value or a !Ref to a parameter with a default", n.Line, n.Tag, n.Value)
	}
	*t = text(n.Value)
	return nil
}

// functionArn is the logical id in !GetAtt Id.Arn.
type functionArn string

func (f *functionArn) UnmarshalYAML(n *yaml.Node) error {
	id, ok := strings.CutSuffix(n.Value, ".Arn")
	if !ok || n.Tag != "!GetAtt" {
		return fmt.Errorf("line %d: %s %s is not understood here, only !GetAtt {function}.Arn", n.Line, n.Tag, n.Value)
	}
	*f = functionArn(id)
	return nil
}
