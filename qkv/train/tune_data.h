// Data files as what recipes of tuning take: read, checked against what the kind of tuning needs, tokenized,
// and limited to a length.
#pragma once

#include <string>
#include <vector>

#include "qkv/data/chat_tokens.h"
#include "qkv/train/recipes/kto.h"
#include "qkv/train/recipes/pairs.h"
#include "qkv/train/tune_job.h"

namespace qkv {

// The records of all files, as chats if wanted. Error if a file is of another kind of data than the settings'
// kind learns from, or than the first.
std::vector<Record> read_tuning_data(const std::vector<std::string>& files, const TuneSettings& settings,
                                     bool chat);

// Tokenized and within `most` tokens; what is left out is counted and said under the name `what`. Error if
// nothing is left of data that were there.
std::vector<TokenSample> tuning_samples(const char* what, const std::vector<Record>& records,
                                        const ChatTokens& tokens, int64_t most, const TuneSettings& settings);
// Pairs stay pairs: both are left out if one is.
std::vector<PreferencePair> tuning_pairs(const char* what, const std::vector<Record>& records,
                                         const ChatTokens& tokens, int64_t most,
                                         const TuneSettings& settings);
// A pair's answers become a good and a bad one.
std::vector<LabelledSample> labelled_samples(const char* what, const std::vector<Record>& records,
                                             const ChatTokens& tokens, int64_t most,
                                             const TuneSettings& settings);

}  // namespace qkv
