#include "batch/model_input.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

namespace springtide {

ModelInput::ModelInput(std::vector<Field> fields, size_t dense_columns, size_t threads)
    : columns_(dense_columns), workers_(threads) {
    size_t start = 0;
    for (const Field& field : fields) {
        const size_t dim = field.table->dim();
        fields_.push_back({field.table, field.mean, start, {}, {}, {}, std::vector<float>(dim), {}});
        start += dim;
    }
    columns_ += start;
}

Pooling ModelInput::pooling_of(const FieldState& field, const FieldKeys& keys) {
    return {keys.inverse, keys.offsets, keys.keys.size(), field.table->dim(), field.mean};
}

void ModelInput::find(std::span<const FieldKeys> batch, size_t* missing) {
    if (batch.size() != fields_.size())
        throw std::invalid_argument("batch: got " + std::to_string(batch.size()) + " fields, wanted " +
                                    std::to_string(fields_.size()));
    for (size_t f = 0; f < fields_.size(); ++f) {
        if (batch[f].counts.size() != batch[f].keys.size())
            throw std::invalid_argument("counts: got " + std::to_string(batch[f].counts.size()) + ", wanted " +
                                        std::to_string(batch[f].keys.size()) + ", one for each key");
        check(pooling_of(fields_[f], batch[f]), {columns_, fields_[f].start});
    }
    workers_.run(fields_.size(), [&](size_t f) {
        auto& [keys, rows] = fields_[f].pending;
        keys = batch[f];
        rows.resize(keys.keys.size());
        fields_[f].table->find(keys.keys, rows.data());
        missing[f] = static_cast<size_t>(std::count(rows.begin(), rows.end(), kNoRow));
    });
    has_pending_ = true;
}

void ModelInput::resident(size_t f, uint8_t* resident) const {
    for (const uint32_t row : fields_.at(f).pending.rows) *resident++ = row != kNoRow;
}

void ModelInput::admit(size_t f, std::span<const int64_t> places, uint32_t at_s) {
    BatchRows& pending = fields_.at(f).pending;
    std::vector<uint64_t> keys;
    keys.reserve(places.size());
    for (const int64_t place : places) {
        if (place < 0 || static_cast<size_t>(place) >= pending.rows.size())
            throw std::invalid_argument("places: got " + std::to_string(place) + ", wanted 0 to " +
                                        std::to_string(pending.rows.size()) + " - 1");
        keys.push_back(pending.keys.keys[static_cast<size_t>(place)]);
    }
    std::vector<uint32_t> rows(keys.size());
    fields_[f].table->admit_new(keys, rows.data(), at_s);
    for (size_t i = 0; i < rows.size(); ++i) pending.rows[static_cast<size_t>(places[i])] = rows[i];
}

std::vector<std::vector<int64_t>> ModelInput::admit_missing(std::span<const size_t> fields, uint32_t at_s) {
    std::vector<std::vector<int64_t>> places(fields.size());
    for (const size_t f : fields) fields_.at(f);
    workers_.run(fields.size(), [&](size_t i) {
        const std::vector<uint32_t>& rows = fields_[fields[i]].pending.rows;
        for (size_t place = 0; place < rows.size(); ++place)
            if (rows[place] == kNoRow) places[i].push_back(static_cast<int64_t>(place));
        admit(fields[i], places[i], at_s);
    });
    return places;
}

void ModelInput::activate_pending() {
    if (!has_pending_) return;
    for (FieldState& field : fields_) std::swap(field.pending, field.active);
    has_pending_ = false;
}

void ModelInput::gather(float* out) {
    activate_pending();
    workers_.run(fields_.size(), [&](size_t f) {
        FieldState& field = fields_[f];
        const auto& [keys, rows] = field.active;
        field.weights.resize(rows.size());
        std::transform(rows.begin(), rows.end(), field.weights.begin(), [&](uint32_t row) {
            return row == kNoRow ? field.zeros.data() : static_cast<const Table*>(field.table)->weights(row);
        });
        pool(pooling_of(field, keys), field.weights.data(), out, {columns_, field.start});
    });
}

void ModelInput::learn(const float* gradient, uint32_t at_s) {
    workers_.run(fields_.size(), [&](size_t f) {
        FieldState& field = fields_[f];
        const auto& [keys, rows] = field.active;
        field.gradients.resize(rows.size() * field.table->dim());
        unpool(pooling_of(field, keys), gradient, {columns_, field.start}, field.gradients.data());
        field.table->update_rows(rows, keys.keys, field.gradients.data(), keys.counts.data(), at_s);
    });
}

}  // namespace springtide
