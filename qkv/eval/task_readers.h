// Readers of the evaluation tasks' data files, prompts included. Each accepts the layout its authors (or
// their Hugging Face dataset) publish, and the instruction layout {"instruction": "Please choose ... Answer1:
// ...", "answer": "answer1"}. JSON files are a list of items or one item per line. Error `<path>:<item>: ...`
// for an item that is neither.
#pragma once

#include <string>
#include <vector>

#include "qkv/eval/tasks.h"

namespace qkv {

std::vector<ChoiceQuestion> read_lambada(const std::string& path);
// Also the six-line text layout: context, index of the right ending, four endings.
std::vector<ChoiceQuestion> read_hellaswag(const std::string& path);
std::vector<ChoiceQuestion> read_arc(const std::string& path);
std::vector<ChoiceQuestion> read_piqa(const std::string& path);
std::vector<ChoiceQuestion> read_winogrande(const std::string& path);

}  // namespace qkv
